"""Maps broken constraints to domain errors by the constraint's name, in one table."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

from psycopg import DataError, IntegrityError

from routines_core.errors import ConflictError, Fault, FaultsError, InvalidError, NotFoundError, RoutinesError

_ERRORS: dict[str, Callable[[], RoutinesError]] = {
    "tasks_name_key": lambda: ConflictError("name: a task of this name exists in the collection.", "name"),
    "routines_name_key": lambda: ConflictError("name: a routine of this name exists for the task.", "name"),
    "routines_task_fkey": lambda: ConflictError("The task has routines: delete them first."),
    "feeds_task_fkey": NotFoundError,
    "feeds_routine_id_fkey": NotFoundError,
    "slug_is_valid": lambda: InvalidError(
        "name: must be 1 to 100 lower-case letters, digits, - or _, starting and ending with a letter or digit.", "name"
    ),
    "routines_webhook_url_is_http": lambda: InvalidError(
        "webhook_url: must be an http or https URL without user or password, at most 2048 characters.", "webhook_url"
    ),
    "routines_paused_until_in_future": lambda: InvalidError(
        "paused_until: must be in the future, by the clock of the database.", "paused_until"
    ),
    "routines_paused_until_in_range": lambda: InvalidError(
        "paused_until: must be in the years 1970 to 2198.", "paused_until"
    ),
    "routines_paused_until_fits_state": lambda: InvalidError(
        "paused_until: only a paused routine can have it; send it with paused: true.", "paused_until"
    ),
    "routines_paused_note_length": lambda: InvalidError("paused_note: must have 1 to 500 characters.", "paused_note"),
    "routines_paused_note_fits_state": lambda: InvalidError(
        "paused_note: only a paused routine can have it; send it with paused: true.", "paused_note"
    ),
    "routines_bounds_are_ordered": lambda: InvalidError("ends_at: must not be earlier than starts_at.", "ends_at"),
    "routines_next_run_at_in_range": lambda: InvalidError(
        "cadence: its next slot is later than the year 2199.", "cadence"
    ),
    "calendars_name_key": lambda: ConflictError("name: a calendar of this name exists in the collection.", "name"),
    "routine_calendars_calendar_id_fkey": lambda: ConflictError(
        "The calendar was deleted, or came into use, at the same time: send the request again."
    ),
    "alert_rules_name_key": lambda: ConflictError("The rule was created at the same time: send the request again."),
    "backfills_routine_exists": NotFoundError,
    "backfills_range_is_ordered": lambda: InvalidError("from: must be in the past.", "from"),
    "collections_environment_refs_is_bounded": lambda: InvalidError(
        "environment_variables: there may be 100 in a collection.", "environment_variables"
    ),
}

_SAID_BY_THE_DATABASE = {
    "routines_expression_is_valid": "cadence.",
    "routines_timezone_is_known": "cadence.",
    "routines_spread_seconds_in_range": "",
    "routines_spread_seconds_below_interval": "",
    "routines_exclusions_are_valid": "",
    "routines_init_params_from_slot_is_valid": "",
    "routines_timeout_seconds_is_positive": "",
    "routines_retry_is_valid": "",
    "routines_pause_after_failures_in_range": "",
    "routines_after_failures_is_known": "",
    "routines_max_concurrent_fits_policy": "",
    "routines_calendars_are_there": "",
    "calendars_days_are_valid": "",
    "backfills_slots_is_bounded": "",
}
"""Rules of a field that only the database knows, and what precedes the field. Its message is `field: rule`, no more."""
_CONFLICTS_SAID_BY_THE_DATABASE = {
    "trajectories_rerun_of_ended",
    "backfills_open_is_bounded",
    "backfills_routine_has_slots",
}
"""Conflicts that only the database knows. Its message is the sentence, without a capital letter and a full stop."""


@contextmanager
def domain_errors(*, missing: str | None = None) -> Generator[None]:
    """Convert a broken constraint to a domain error, without the row that psycopg's message would show.

    Args:
        missing: The foreign key whose violation means, in this statement, that its target was just deleted.

    Raises:
        ConflictError: A name is taken, or the object to delete is in use.
        NotFoundError: The target of the key `missing` was deleted.
        InvalidError: Another rule of the schema is broken, or a value cannot be stored.
    """
    try:
        yield
    except IntegrityError as error:
        name = error.diag.constraint_name or ""
        if name == missing:
            raise NotFoundError from None
        if name in _SAID_BY_THE_DATABASE:
            field, _, rule = (error.diag.message_primary or "").partition(": ")
            raise FaultsError([Fault(f"{_SAID_BY_THE_DATABASE[name]}{field}", rule)]) from None
        if name in _CONFLICTS_SAID_BY_THE_DATABASE:
            sentence = error.diag.message_primary or ""
            raise ConflictError(f"{sentence[:1].upper()}{sentence[1:]}.") from None
        known = _ERRORS.get(name)
        raise (known() if known else InvalidError(f"The rule {name} of the database is broken.")) from None
    except DataError as error:
        raise InvalidError(f"A value cannot be stored by the database (SQLSTATE {error.sqlstate}).") from None
