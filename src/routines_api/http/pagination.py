"""Pages of a list: `limit`, an opaque `cursor`, and a Link header to the next page where there is more."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

import msgspec
from litestar import Response
from litestar.params import Parameter

from routines_api.http.access import ApiRequest
from routines_core.errors import InvalidError

Key = TypeVar("Key")
Item = TypeVar("Item")

Cursor = Annotated[
    str | None,
    Parameter(max_length=1000, description="Where the page begins: from the Link header of the page before."),
]


def decode_cursor(cursor: str | None, kind: type[Key]) -> Key | None:
    """The key of the last item of the page before; None at the beginning.

    Raises:
        InvalidError: It is no cursor of this list.
    """
    if cursor is None:
        return None
    try:
        return msgspec.json.decode(_json_of(cursor), type=kind)
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise InvalidError(
            "cursor: must be taken from the Link header of the page before, unchanged.", "cursor"
        ) from None


def _json_of(cursor: str) -> bytes:
    text = base64.b64decode(cursor, altchars=b"-_", validate=True)
    if b"\\u0000" in text:
        raise ValueError("valid JSON, and no text that Postgres takes")
    return text


def page(
    request: ApiRequest, found: Sequence[Item], limit: int, key: Callable[[Item], Any], show: Callable[[Item], Any]
) -> Response[list[Any]]:
    """At most `limit` items, with a Link to what follows; `found` has one more than `limit` where there is more."""
    items = found[:limit]
    headers = {"Link": next_link(request, limit, key(items[-1]))} if len(found) > limit else {}
    return Response([show(item) for item in items], headers=headers)


def next_link(request: ApiRequest, limit: int, last: Any) -> str:
    """The Link header of a page whose last item has this key."""
    # Relative to the request, so that it is right behind any proxy.
    cursor = base64.urlsafe_b64encode(msgspec.json.encode(last)).decode()
    return f'<{request.scope["path"]}?{urlencode({"limit": limit, "cursor": cursor})}>; rel="next"'
