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


class RateLimitedError(RoutinesError):
    """The key sends requests faster than its rate allows.

    Attributes:
        retry_after_seconds: How long to wait before the next request.
    """

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__("This key sends requests faster than it may: wait as long as Retry-After says.")
        self.retry_after_seconds = retry_after_seconds
