"""Errors of the HTTP layer; domain errors are in routines_core.errors."""

from routines_core.errors import ConflictError, InvalidError, RoutinesError


class BodyTooLargeError(InvalidError):
    """The body is over the limit."""


class MalformedBodyError(InvalidError):
    """The body is not valid JSON (or not a valid form), or it cannot be stored."""


class UnsupportedMediaTypeError(InvalidError):
    """The body has a media type, charset or encoding that the operation does not take."""


class HeadersTooLargeError(InvalidError):
    """The headers are over the limit."""


class SlowBodyError(InvalidError):
    """The body did not arrive in time."""


class IdempotencyKeyReusedError(ConflictError):
    """The Idempotency-Key was used before with a different request."""


class _LaterError(RoutinesError):
    """The request is refused for now.

    Attributes:
        retry_after_seconds: How long to wait before the next request.
    """

    def __init__(self, message: str, retry_after_seconds: float = 1) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class RateLimitedError(_LaterError):
    """A key, or a calendar feed, is used more often than its rate allows."""

    def __init__(self, retry_after_seconds: float, what: str = "key") -> None:
        message = f"This {what} exceeds its request rate: wait for the time in Retry-After."
        super().__init__(message, retry_after_seconds)


class WorkBudgetError(_LaterError):
    """The key has used up its processor time for checking bodies."""


class CollectionBusyError(_LaterError):
    """The collection has reached its share of what may be in progress at once."""


class ServiceBusyError(_LaterError):
    """The process has no room for this request at the moment."""
