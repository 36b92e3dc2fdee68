"""Collections: sql/queries/collections.sql called from Python."""

from datetime import datetime

import msgspec

from routines_core.db.pool import Connection
from routines_core.db.statements import Statement


class Collection(msgspec.Struct, frozen=True):
    """A tenant."""

    name: str
    description: str
    created_at: datetime


_FIND = Statement("collections.find_collection", Collection)


async def find_collection(connection: Connection, key_id: int) -> Collection:
    """The collection that the key opens.

    Raises:
        NotFoundError: There is none.
    """
    return await _FIND.one(connection, key_id=key_id)
