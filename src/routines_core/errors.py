"""Every error that Routines raises on purpose, drawn as one tree.

    RoutinesError
    ├── InvalidError             what was sent breaks a rule          -> 400
    │   ├── FaultsError          it breaks several
    │   ├── ForbiddenAddressError  a URL leads to an address that is not public
    │   └── UnknownKeysError     override keys the task does not declare
    ├── UnauthorizedError        no key, or none that counts          -> 401
    │   └── MistypedKeyError     its own checksum does not fit
    ├── NotFoundError            absent, or not the caller's to see   -> 404
    ├── ConflictError            taken, or still in use               -> 409
    │   └── FaultsConflictError  several things are in the way
    ├── DatabaseError            the database is away or unfit        -> 503
    │   ├── SilenceError         it does not answer in time
    │   └── MigrationError       the schema's history does not match the files
    ├── StorageError             the file store is away or full       -> 503
    ├── ConfigurationError       a setting is missing or wrong        -> exit code 1
    ├── EmbeddedServerError      the embedded Postgres cannot do it   -> exit code 1
    └── SecretError              a ciphertext does not open

Errors carry their values as attributes; `str(error)` is a sentence for a person.
"""

from collections.abc import Sequence
from typing import NamedTuple


class RoutinesError(Exception):
    """The root: catch this to catch whatever Routines raises on purpose."""


class InvalidError(RoutinesError):
    """What was sent breaks a rule.

    Attributes:
        field: The path of the offending field (`cadence.hour_utc`), empty for the whole body.
    """

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class Fault(NamedTuple):
    """One broken rule.

    Attributes:
        field: The path of the offending field, empty for the whole body.
        message: The rule and what was given, as the rest of a sentence that begins with the field.
    """

    field: str
    message: str

    def __str__(self) -> str:
        """`field: message`."""
        return f"{self.field}: {self.message}" if self.field else self.message


class FaultsError(InvalidError):
    """What was sent breaks several rules, all of them named.

    Attributes:
        faults: Each broken rule.
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(map(str, faults)) + ".", faults[0].field if len(faults) == 1 else "")
        self.faults = tuple(faults)


class ForbiddenAddressError(InvalidError):
    """A URL leads to an address that is not public; the message says which setting allows one's own network."""

    def __init__(self, cause: str, field: str = "") -> None:
        prefix = f"{field}: " if field else ""
        super().__init__(f"{prefix}{cause}; for your own network set ROUTINES_WEBHOOK_ALLOW_PRIVATE=true.", field)


class UnknownKeysError(InvalidError):
    """Keys of a routine's overrides or a run's parameters that the task's `workflow.init_params` does not declare.

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
    """The bearer token is missing, malformed, unknown, revoked or expired: never says which."""


class MistypedKeyError(UnauthorizedError):
    """The bearer token was mistyped or cut: its checksum tells anybody, so that saying it gives nothing away."""


class NotFoundError(RoutinesError):
    """It does not exist, or it belongs to a collection that the key does not open: one error for both."""


class ConflictError(RoutinesError):
    """The name is taken, or the thing is still in use.

    Attributes:
        field: The field whose value is taken, empty where none is.
    """

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class FaultsConflictError(ConflictError):
    """Several things are in the way, all of them named.

    Attributes:
        faults: Each of them.
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(map(str, faults)) + ".", faults[0].field if len(faults) == 1 else "")
        self.faults = tuple(faults)


class DatabaseError(RoutinesError):
    """The database cannot be reached, or it is too old."""


class SilenceError(DatabaseError):
    """The database did not answer within the time that the caller gave it."""


class MigrationError(DatabaseError):
    """The schema's recorded history does not match the migration files."""


class StorageError(RoutinesError):
    """The file store cannot be reached, or it is full."""


class ConfigurationError(RoutinesError):
    """A setting is missing or wrong; the message says which and what to do."""


class EmbeddedServerError(RoutinesError):
    """The embedded Postgres cannot be started or stopped; the message says why and what to do."""


class SecretError(RoutinesError):
    """A ciphertext does not open: unknown key id, damaged, or moved from where it belongs."""
