"""Every error that Routines raises deliberately, as one tree.

    RoutinesError
    ├── InvalidError             the input breaks a rule                        -> 400
    │   ├── FaultsError          the input breaks several rules
    │   ├── ForbiddenAddressError  a URL leads to an address that is not public
    │   ├── RunLimitError        a step would exceed a limit of its run or its collection
    │   └── UnknownKeysError     override keys that the task does not declare
    ├── UnauthorizedError        the API key is missing or not valid            -> 401
    │   └── MistypedKeyError     the API key's checksum is wrong
    ├── NotFoundError            missing, or the caller may not see it          -> 404
    ├── ConflictError            a name is taken, or an object is in use        -> 409
    │   └── FaultsConflictError  several conflicts
    ├── LimitExceededError       the collection is at one of its limits         -> 429
    ├── DatabaseError            the database is unreachable or unsuitable      -> 503
    │   ├── SilenceError         the database does not answer in time
    │   └── MigrationError       the schema's history does not match the migration files
    ├── StatementTimeoutError    a statement took too long and was cancelled    -> 503
    ├── StorageError             the file store is unreachable or full          -> 503
    ├── TransientError           a step failed for a cause that may go away by itself
    ├── ConfigurationError       a setting is missing or wrong                  -> exit code 1
    │   └── SessionError         connections to the database do not keep their session
    ├── EmbeddedServerError      the embedded Postgres cannot be run            -> exit code 1
    └── SecretError              a ciphertext cannot be decrypted

Errors carry their values as attributes; `str(error)` is a sentence for a person.
"""

from collections.abc import Sequence
from typing import NamedTuple


class RoutinesError(Exception):
    """Base class of every error that Routines raises deliberately."""


class InvalidError(RoutinesError):
    """The input breaks a rule.

    Attributes:
        field: Path of the offending field (`cadence.hour_utc`), empty for the whole body.
    """

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class Fault(NamedTuple):
    """One broken rule.

    Attributes:
        field: Path of the offending field, empty for the whole body.
        message: The rule and the given value, worded to follow the field's name.
    """

    field: str
    message: str

    def __str__(self) -> str:
        """Return `field: message`."""
        return f"{self.field}: {self.message}" if self.field else self.message


class FaultsError(InvalidError):
    """The input breaks several rules; the message lists them all.

    Attributes:
        faults: The broken rules.
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(map(str, faults)) + ".", faults[0].field if len(faults) == 1 else "")
        self.faults = tuple(faults)


class ForbiddenAddressError(InvalidError):
    """A URL leads to an address that is not public; the message names the setting that allows private addresses."""

    def __init__(self, cause: str, field: str = "") -> None:
        prefix = f"{field}: " if field else ""
        super().__init__(
            f"{prefix}{cause}; to allow private addresses, set ROUTINES_WEBHOOK_ALLOW_PRIVATE=true.", field
        )


class RunLimitError(InvalidError):
    """A step would exceed a limit of its run or its collection; it fails and is not retried.

    The message names the limit, its value and the use.
    """


class UnknownKeysError(InvalidError):
    """A routine's overrides or a run's parameters have keys that the task's `workflow.init_params` does not declare.

    Attributes:
        unknown_keys: The offending keys, sorted.
        declared_keys: The keys that may be overridden, in the order of the workflow.
    """

    def __init__(self, unknown_keys: list[str], declared_keys: list[str], field: str = "init_params_overrides") -> None:
        allowed = ", ".join(declared_keys) or "none"
        super().__init__(
            f"{field}: {', '.join(unknown_keys)} not declared in the task's "
            f"workflow.init_params (declared: {allowed}).",
            field=field,
        )
        self.unknown_keys = unknown_keys
        self.declared_keys = declared_keys


class UnauthorizedError(RoutinesError):
    """The bearer token is missing, malformed, unknown, revoked or expired; the message never says which."""


class MistypedKeyError(UnauthorizedError):
    """The bearer token was mistyped or truncated. Anyone can compute the checksum, so saying this reveals nothing."""


class NotFoundError(RoutinesError):
    """The object does not exist, or belongs to a collection that the key does not open; the error is the same."""


class ConflictError(RoutinesError):
    """A name is taken, or an object is still in use.

    Attributes:
        field: The field whose value is taken; empty if no field is to blame.
    """

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class FaultsConflictError(ConflictError):
    """Several conflicts; the message lists them all.

    Attributes:
        faults: The conflicts.
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(map(str, faults)) + ".", faults[0].field if len(faults) == 1 else "")
        self.faults = tuple(faults)


class LimitExceededError(RoutinesError):
    """The collection is at one of its limits.

    Attributes:
        limit: The limit's name, as in routines_core.limits.
        value: The limit.
        use: The collection's use of it.
        retry_after_seconds: When to try again; None if time alone does not help.
    """

    def __init__(self, limit: str, value: int, use: int, unit: str, retry_after_seconds: float | None = None) -> None:
        advice = "Wait for the time in Retry-After" if retry_after_seconds is not None else "Make room first"
        super().__init__(
            f"The collection is at its limit {limit}: it has {use} of {value} {unit}. {advice}, or ask the operator to "
            "raise the limit."
        )
        self.limit = limit
        self.value = value
        self.use = use
        self.retry_after_seconds = retry_after_seconds


class DatabaseError(RoutinesError):
    """The database cannot be reached or is too old."""


class SilenceError(DatabaseError):
    """The database did not answer within the caller's timeout."""


class MigrationError(DatabaseError):
    """The schema's recorded history does not match the migration files."""


class StatementTimeoutError(RoutinesError):
    """Postgres cancelled a statement that took too long. The database is up, but the request was too expensive.

    Not a DatabaseError: it is a failure of the caller and must not be retried like an outage.

    Attributes:
        statement: The statement's name, `<aggregate>.<name>`.
    """

    def __init__(self, statement: str) -> None:
        super().__init__(f"The statement {statement} took too long and was cancelled.")
        self.statement = statement


class StorageError(RoutinesError):
    """The file store cannot be reached or is full."""


class TransientError(RoutinesError):
    """A step failed for a cause that may go away by itself."""


class ConfigurationError(RoutinesError):
    """A setting is missing or wrong; the message names it and says what to do."""


class SessionError(ConfigurationError):
    """A connection to the database does not keep what a program sets in it. Programs refuse to start."""


class EmbeddedServerError(RoutinesError):
    """The embedded Postgres cannot be started or stopped; the message says why and what to do."""


class SecretError(RoutinesError):
    """A ciphertext cannot be decrypted: its key is unknown, or it is damaged or was moved to another context."""
