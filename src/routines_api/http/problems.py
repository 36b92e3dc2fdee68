"""Errors as RFC 9457 problem documents, by one table from error class to status and type. See docs/use/errors.md."""

import math
import re
import secrets
from http import HTTPStatus
from typing import Any, NamedTuple, cast, get_args, get_type_hints

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import Send

from routines_api.http.errors import (
    BodyTooLargeError,
    CollectionBusyError,
    HeadersTooLargeError,
    IdempotencyKeyReusedError,
    MalformedBodyError,
    RateLimitedError,
    ServiceBusyError,
    SlowBodyError,
    UnsupportedMediaTypeError,
    WorkBudgetError,
)
from routines_core.db.pool import AWAY
from routines_core.errors import (
    ConflictError,
    Fault,
    FaultsConflictError,
    FaultsError,
    InvalidError,
    LimitExceededError,
    MistypedKeyError,
    NotFoundError,
    RoutinesError,
    SecretError,
    StatementTimeoutError,
    StorageError,
    UnauthorizedError,
    UnknownKeysError,
)
from routines_core.logging import describe
from routines_core.tracing import parse_traceparent
from routines_workflow.type_names import rule_of

RETRY_SECONDS = 5
"""The value of Retry-After while the database or the file store is unavailable."""
MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:routines:problem:"

KEY_ID = "key_id"
"""Where the state of a request has the id of its key, for the log."""

log = structlog.get_logger("api")


class ProblemType(NamedTuple):
    """A type of problem, with the `status`, `type` and `title` of its documents."""

    status: int
    slug: str
    title: str
    detail: str | None = None
    """Replaces the error's own sentence, which could reveal what exists."""


# The first match counts, so a class comes before its base class.
PROBLEM_TYPES: dict[type[Exception], ProblemType] = {
    UnknownKeysError: ProblemType(400, "unknown-override-keys", "Unknown override keys"),
    MalformedBodyError: ProblemType(400, "malformed-body", "Malformed body"),
    SlowBodyError: ProblemType(408, "slow-body", "Body too slow"),
    BodyTooLargeError: ProblemType(413, "body-too-large", "Body too large"),
    UnsupportedMediaTypeError: ProblemType(415, "unsupported-media-type", "Unsupported media type"),
    HeadersTooLargeError: ProblemType(431, "headers-too-large", "Headers too large"),
    InvalidError: ProblemType(400, "invalid-request", "Invalid request"),
    MistypedKeyError: ProblemType(
        401,
        "unauthorized",
        "Unauthorized",
        "The key is mistyped or truncated: its last six characters do not match the rest.",
    ),
    UnauthorizedError: ProblemType(
        401, "unauthorized", "Unauthorized", "Send a valid key: Authorization: Bearer rtn_<id>_<secret>."
    ),
    NotFoundError: ProblemType(404, "not-found", "Not found", "Nothing here is visible to this key."),
    IdempotencyKeyReusedError: ProblemType(409, "idempotency-key-reused", "Idempotency-Key reused"),
    ConflictError: ProblemType(409, "conflict", "Conflict"),
    RateLimitedError: ProblemType(429, "rate-limited", "Too many requests"),
    LimitExceededError: ProblemType(429, "limit-exceeded", "Limit exceeded"),
    CollectionBusyError: ProblemType(429, "too-much-at-once", "Too much at once"),
    WorkBudgetError: ProblemType(429, "too-much-work", "Too much work"),
    ServiceBusyError: ProblemType(503, "busy", "Service busy"),
    **dict.fromkeys(
        AWAY,
        ProblemType(
            503, "database-away", "Database unavailable", "The database is unavailable; try again after Retry-After."
        ),
    ),
    StatementTimeoutError: ProblemType(
        503,
        "statement-timeout",
        "Request too expensive",
        "The request was too expensive: the database cancelled it because it took too long. Ask for less.",
    ),
    StorageError: ProblemType(
        503,
        "files-away",
        "File store unavailable",
        "Files cannot be stored at the moment; try again after Retry-After.",
    ),
    Exception: ProblemType(500, "internal", "Internal error", "The service failed; its log has the cause."),
}


class Problem(msgspec.Struct, omit_defaults=True):
    """A problem document (RFC 9457).

    Attributes:
        type: The type of problem, one of those in docs/use/errors.md.
        title: The type in words.
        status: The HTTP status.
        detail: A sentence that names the field, the rule and the value given.
        errors: Every broken rule, each with its field.
        unknown_keys: Override keys that the task does not declare.
        limit: The limit that the collection is at.
        value: That limit, in its unit.
        use: The collection's use of it.
        trace_id: By which the log of the service has the cause of a 5xx.
    """

    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] | None = None
    unknown_keys: list[str] | None = None
    limit: str | None = None
    value: int | None = None
    use: int | None = None
    trace_id: str | None = None


def problem_of(error: Exception) -> Problem:
    """Convert an error to the problem document that the client may see."""
    kind = next(kind for error_type, kind in PROBLEM_TYPES.items() if isinstance(error, error_type))
    problem = Problem(TYPE_PREFIX + kind.slug, kind.title, kind.status, kind.detail or str(error))
    if isinstance(error, InvalidError | ConflictError):
        problem.errors = [fault._asdict() for fault in _faults(error)]
    if isinstance(error, UnknownKeysError):
        problem.unknown_keys = error.unknown_keys
    if isinstance(error, LimitExceededError):
        problem.limit, problem.value, problem.use = error.limit, error.value, error.use
    return problem


def answer(error: Exception, trace_id: str | None = None) -> Response[bytes]:
    """Answer an error with its problem document and headers. A 5xx gets the id by which the log has it."""
    problem = problem_of(error)
    problem.trace_id = trace_id
    headers: dict[str, str] = {}
    if problem.status == 401:  # noqa: PLR2004 - an HTTP status
        headers["WWW-Authenticate"] = "Bearer"
    if (
        isinstance(
            error, RateLimitedError | LimitExceededError | CollectionBusyError | WorkBudgetError | ServiceBusyError
        )
        and error.retry_after_seconds is not None
    ):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_seconds)))
    if isinstance(error, (*AWAY, StatementTimeoutError, StorageError)):
        headers["Retry-After"] = str(RETRY_SECONDS)
    content = msgspec.json.encode(problem)
    return Response(content, status_code=problem.status, media_type=MEDIA_TYPE, headers=headers)


async def send_answer(error: RoutinesError, send: Send) -> None:
    """Answer an error outside Litestar's routes, directly through ASGI."""
    response = answer(error)
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(response.content)).encode())]
    await send({"type": "http.response.start", "status": response.status_code or 0, "headers": headers})
    await send({"type": "http.response.body", "body": response.content, "more_body": False})


def _faults(error: InvalidError | ConflictError) -> list[Fault]:
    if isinstance(error, FaultsError | FaultsConflictError):
        return list(error.faults)
    sentence = str(error)
    return [Fault(error.field, sentence.removeprefix(f"{error.field}: "))]


def _on_error(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    if isinstance(error, SecretError):
        return _on_unexpected(request, error)
    if isinstance(error, _COUNTED):
        request.app.state.services.metrics.refused(problem_of(error).type.removeprefix(TYPE_PREFIX))
    status = problem_of(error).status
    return answer(error, _logged(request, error, status) if status >= _SERVERS_FAULT else None)


_COUNTED = (RateLimitedError, CollectionBusyError, WorkBudgetError, ServiceBusyError, StatementTimeoutError)
"""What the metric routines_api_refused_total counts, by type of problem."""


def _on_http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Answer errors raised by Litestar. An unknown method is answered with 404, like an unknown path."""
    if error.status_code in {404, 405}:
        return answer(NotFoundError())
    if isinstance(error, ValidationException):
        return answer(FaultsError(_parameter_faults(request, error)))
    if error.status_code == HTTPStatus.BAD_REQUEST:  # raised before routing, for the header Host
        return answer(InvalidError(f"The request is malformed: {error.detail}."))
    return _on_unexpected(request, error)


def _parameter_faults(request: Request[Any, Any, Any], error: ValidationException) -> list[Fault]:
    details: Any = error.extra if isinstance(error.extra, list) else []
    if missing := _MISSING.match(error.detail):
        return [Fault(missing[1], "is required")]
    faults = [_parameter_fault(request, str(each.get("key", "")), str(each.get("message", ""))) for each in details]
    return faults or [Fault("", "a parameter is not valid")]


_MISSING = re.compile(r"Missing required \w+ parameter '(\w+)'")


def _parameter_fault(request: Request[Any, Any, Any], name: str, message: str) -> Fault:
    if (choices := _choices(request, name)) and "enum" in message:
        return Fault(name, f"must be {', '.join(choices[:-1])} or {choices[-1]}")
    return Fault(name, rule_of(message) or "is not valid")


def _choices(request: Request[Any, Any, Any], name: str) -> list[str]:
    """Return the values that a parameter may have, if they are enumerated."""
    hint = get_type_hints(request.route_handler.fn).get(name)
    return [str(choice) for part in (hint, *get_args(hint)) for choice in get_args(part) if isinstance(choice, str)]


def _on_unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    return answer(Exception(), _logged(request, error, HTTPStatus.INTERNAL_SERVER_ERROR))


def _logged(request: Request[Any, Any, Any], error: Exception, status: int) -> str:
    """Log why a request was answered with a 5xx. Returns the trace id, by which the line is found."""
    trace_id = trace_id_of(request.headers.get("traceparent", ""))
    facts = {
        "status": int(status),
        "method": request.method,
        "route": cast("dict[str, Any]", request.scope).get("path_template"),  # missing before routing
        "trace_id": trace_id,
        "key_id": request.scope["state"].get(KEY_ID),
        **describe(error),
    }
    write = log.error if status == HTTPStatus.INTERNAL_SERVER_ERROR else log.warning
    write("request failed", **{name: value for name, value in facts.items() if value is not None})
    return trace_id


_SERVERS_FAULT = 500


def trace_id_of(traceparent: str) -> str:
    """Return the trace id of a `traceparent` header (W3C Trace Context), or a new one."""
    found = parse_traceparent(traceparent)
    return found.trace_id if found else secrets.token_hex(16)


def _on_group(request: Request[Any, Any, Any], group: ExceptionGroup[Exception]) -> Response[bytes]:
    """Answer the error that a dependency raised while handling another one, which Litestar wraps in a group."""
    error = group.exceptions[0]
    return _on_error(request, error) if isinstance(error, (RoutinesError, *AWAY)) else _on_unexpected(request, error)


HANDLERS: dict[Any, Any] = {
    RoutinesError: _on_error,
    ExceptionGroup: _on_group,
    HTTPException: _on_http_error,
    Exception: _on_unexpected,
    **dict.fromkeys(AWAY, _on_error),
}
