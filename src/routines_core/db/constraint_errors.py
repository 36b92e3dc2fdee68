"""Maps broken constraints to domain errors by the constraint's name, in one table."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

from psycopg import DataError, IntegrityError

from routines_core.errors import ConflictError, InvalidError, NotFoundError, RoutinesError

_ERRORS: dict[str, Callable[[], RoutinesError]] = {
    "tasks_name_key": lambda: ConflictError("name: a task of this name exists in the collection.", "name"),
    "routines_name_key": lambda: ConflictError("name: a routine of this name exists for the task.", "name"),
    "routines_task_fkey": lambda: ConflictError("The task has routines: delete them first."),
    "slug_is_valid": lambda: InvalidError(
        "name: must be 1 to 100 lower-case letters, digits, - or _, starting and ending with a letter or digit.", "name"
    ),
    "routines_webhook_url_is_http": lambda: InvalidError(
        "webhook_url: must be an http or https URL without user or password, at most 2048 characters.", "webhook_url"
    ),
    "collections_environment_refs_is_bounded": lambda: InvalidError(
        "environment_variables: there may be 100 in a collection.", "environment_variables"
    ),
}


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
        known = _ERRORS.get(name)
        raise (known() if known else InvalidError(f"The rule {name} of the database is broken.")) from None
    except DataError as error:
        raise InvalidError(f"A value cannot be stored by the database (SQLSTATE {error.sqlstate}).") from None
