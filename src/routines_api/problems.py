"""Errors as RFC 9457 problem documents: one table from domain error to HTTP status."""

from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException

from routines_api.requests import BodyTooLargeError
from routines_core.db.pool import AWAY
from routines_core.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    RoutinesError,
    UnauthorizedError,
    UnknownKeysError,
)

_RETRY_SECONDS = "5"
_TITLES = {
    400: "Invalid request",
    401: "Unauthorized",
    404: "Not found",
    409: "Conflict",
    413: "Body too large",
    500: "Internal error",
    503: "Database away",
}
_STATUSES: tuple[tuple[type[RoutinesError], int], ...] = (
    (BodyTooLargeError, 413),
    (InvalidError, 400),
    (UnauthorizedError, 401),
    (NotFoundError, 404),
    (ConflictError, 409),
)
_DETAILS = {
    401: "Send a valid key: Authorization: Bearer rtn_…",
    404: "There is nothing here that this key may see.",
    500: "The service failed; its log has the cause.",
    503: "The database is away; try again.",
}


def problem(status: int, detail: str, **extensions: Any) -> Response[bytes]:
    """A problem document."""
    title = _TITLES.get(status, "Error")
    body = {"type": f"/errors/{title.lower().replace(' ', '-')}", "title": title, "status": status, "detail": detail}
    headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": _RETRY_SECONDS}}.get(status, {})
    content = msgspec.json.encode({**body, **extensions})
    return Response(content, status_code=status, media_type="application/problem+json", headers=headers)


def on_routines_error(_request: Request[Any, Any, Any], error: RoutinesError) -> Response[bytes]:
    """What was raised on purpose."""
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
    extensions = {"unknown_keys": error.unknown_keys} if isinstance(error, UnknownKeysError) else {}
    return problem(status, _DETAILS.get(status) or str(error), **extensions)


def on_http_error(_request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """What Litestar raises: a method that is not served is as absent as a path that is not."""
    status = 404 if error.status_code == 405 else error.status_code  # noqa: PLR2004 - an HTTP status
    return problem(status, _DETAILS.get(status) or error.detail)


def on_database_away(_request: Request[Any, Any, Any], _error: Exception) -> Response[bytes]:
    """The pool or a connection gave up."""
    return problem(503, _DETAILS[503])


HANDLERS: dict[Any, Any] = {
    RoutinesError: on_routines_error,
    HTTPException: on_http_error,
    **dict.fromkeys(AWAY, on_database_away),
}
