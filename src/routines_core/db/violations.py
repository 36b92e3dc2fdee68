"""Broken constraints become domain errors, by the constraint's name, in one table."""

from collections.abc import Generator
from contextlib import contextmanager

from psycopg import IntegrityError

from routines_core.errors import ConflictError, InvalidError, RoutinesError

_ERRORS: dict[str, RoutinesError] = {
    "tasks_name_key": ConflictError("name: a task of this name exists in the collection.", "name"),
    "routines_name_key": ConflictError("name: a routine of this name exists for the task.", "name"),
    "slug_is_valid": InvalidError(
        "name: must be 1 to 100 lower-case letters, digits, - or _, starting and ending with a letter or digit.", "name"
    ),
}


@contextmanager
def domain_errors() -> Generator[None]:
    """Raise what a broken constraint means to a person, without the row that psycopg's message would show.

    Raises:
        ConflictError: A name is taken.
        InvalidError: Another rule of the schema is broken.
    """
    try:
        yield
    except IntegrityError as error:
        name = error.diag.constraint_name or ""
        raise _ERRORS.get(name, InvalidError(f"The rule {name} of the database is broken.")) from None
