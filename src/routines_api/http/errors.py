"""Errors of HTTP itself; those of the domain are in routines_core.errors."""

from routines_core.errors import ConflictError, InvalidError, RoutinesError


class BodyTooLargeError(InvalidError):
    """The body is over the limit."""


class MalformedBodyError(InvalidError):
    """The body is not what JSON is, or not JSON that can be stored."""


class UnsupportedMediaTypeError(InvalidError):
    """The body is of another type than JSON."""


class HeadersTooLargeError(InvalidError):
    """The headers are over the limit."""


class SlowBodyError(InvalidError):
    """The body did not come in time."""


class IdempotencyKeyReusedError(ConflictError):
    """The Idempotency-Key was sent before with another request."""


class RateLimitedError(RoutinesError):
    """The key asks faster than it may.

    Attributes:
        retry_after_seconds: When it may ask again.
    """

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__("This key asks faster than it may: wait as long as Retry-After says.")
        self.retry_after_seconds = retry_after_seconds
