"""Collections: sql/queries/collections.sql called from Python."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec
from psycopg.types.json import Jsonb

from routines_core.db.constraint_errors import domain_errors
from routines_core.db.pool import Connection
from routines_core.db.secrets import SealedSecret, as_parameters
from routines_core.db.statements import Statement


class Collection(msgspec.Struct, frozen=True):
    """A tenant."""

    name: str
    description: str
    created_at: datetime


class _Environment(msgspec.Struct):
    names: list[str]


class _Id(msgspec.Struct):
    id: int


_FIND = Statement("collections.find_collection", Collection)
_ENVIRONMENT = Statement("collections.environment", _Environment)
_PATCH_ENVIRONMENT = Statement("collections.patch_environment", _Id)


async def find_collection(connection: Connection, key_id: int) -> Collection:
    """Return the collection that the key opens.

    Raises:
        NotFoundError: The collection does not exist.
    """
    return await _FIND.one(connection, key_id=key_id)


async def environment_names(connection: Connection, key_id: int) -> list[str]:
    """Return the names of the collection's environment variables, sorted."""
    return (await _ENVIRONMENT.one(connection, key_id=key_id)).names


async def patch_environment(
    connection: Connection,
    *,
    key_id: int,
    sealed: Mapping[str, SealedSecret],
    removed: Sequence[str],
    kept: Sequence[str],
) -> bool:
    """Set and remove environment variables, and keep the others. Waits for a concurrent change of the same collection.

    Returns:
        False, without changing anything, if a variable in `kept` does not exist.

    Raises:
        InvalidError: There would be too many variables.
    """
    with domain_errors():
        patched = await _PATCH_ENVIRONMENT.first(
            connection,
            key_id=key_id,
            refs=Jsonb({name: str(secret.id) for name, secret in sealed.items()}),
            removed=list(removed),
            kept=list(kept),
            **as_parameters(list(sealed.values())),
        )
    return patched is not None
