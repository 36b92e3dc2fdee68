"""Pagination: `limit`, an opaque `cursor`, and a Link header to the next page if there is one."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar, cast
from urllib.parse import urlencode

import msgspec
from litestar import Response
from litestar.params import Parameter

from routines_api.http.access import ApiRequest
from routines_api.http.paths import LARGEST_ID
from routines_core.errors import InvalidError

Key = TypeVar("Key")
Item = TypeVar("Item")

Cursor = Annotated[
    str | None,
    Parameter(max_length=1000, description="Where the page begins: taken from the Link header of the previous page."),
]


def decode_cursor(
    cursor: str | None, kind: type[Key], field: str = "cursor", origin: str = "Link header of the previous page"
) -> Key | None:
    """Return the sort key of the previous page's last item; None for the first page.

    Args:
        cursor: As it was sent.
        kind: The type of the key.
        field: The parameter, for the error.
        origin: Where clients have it from, for the error.

    Raises:
        InvalidError: The cursor does not come from this list.
    """
    if cursor is None:
        return None
    try:
        return _storable(msgspec.json.decode(_json_of(cursor), type=kind))
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise InvalidError(f"{field}: must be taken unchanged from the {origin}.", field) from None


def _json_of(cursor: str) -> bytes:
    text = base64.b64decode(cursor, altchars=b"-_", validate=True)
    if b"\\u0000" in text:
        raise ValueError("valid JSON, but Postgres accepts no NUL")
    return text


def _storable(key: Any) -> Any:
    parts = cast("tuple[Any, ...]", key if isinstance(key, tuple) else (key,))
    if any(isinstance(part, int) and abs(part) > LARGEST_ID for part in parts):
        raise ValueError("valid JSON, but no bigint of Postgres")
    return cast("Any", key)


def page(
    request: ApiRequest,
    found: Sequence[Item],
    limit: int,
    key: Callable[[Item], Any],
    show: Callable[[Item], Any],
    **filters: Any,
) -> Response[list[Any]]:
    """Build one page of a list.

    Args:
        request: The request, for the path in the Link header.
        found: The items; one more than `limit` if there is a next page. The last may say, by `is_cut`, that the page
            ends before for its size.
        limit: Maximum number of items on the page.
        key: Returns an item's sort key, which becomes the cursor.
        show: Converts an item to its shape in the answer.
        filters: Query parameters that the next page needs too. Those that are None are left out.
    """
    items = found[:limit]
    has_next = len(found) > limit or bool(items and getattr(items[-1], "is_cut", False))
    headers = {"Link": next_link(request, limit, key(items[-1]), **filters)} if has_next else {}
    return Response([show(item) for item in items], headers=headers)


def next_link(request: ApiRequest, limit: int, last: Any, **filters: Any) -> str:
    """Return the Link header of a page whose last item has this sort key. Filters that are None are left out."""
    # Without scheme and host, so that it is right behind any proxy.
    cursor = base64.urlsafe_b64encode(msgspec.json.encode(last)).decode()
    given = {name: value for name, value in filters.items() if value is not None}
    return f'<{request.scope["path"]}?{urlencode({"limit": limit, **given, "cursor": cursor})}>; rel="next"'
