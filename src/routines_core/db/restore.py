"""What an operator does after a restore or an asynchronous failover: sql/queries/restore.sql called from Python.

Runs are protected without it: everything outside knows a run by its random `run_id`. But clients know it by its number,
and numbers of runs that were lost are given out again unless the identities are moved on.
"""

from datetime import datetime

import msgspec

from routines_core.db.pool import Connection
from routines_core.db.statements import Statement

MOVED_BY = 1_000_000_000_000
"""How far identities are moved on. Starting 50,000 runs a second, more than any machine that was measured, takes 231
days to use up as many. JavaScript's exact integers have room for 9,000 such moves."""


class RestoredState(msgspec.Struct, frozen=True):
    """What a database holds after a restore.

    Attributes:
        newest_record_at: When the newest run or skip was recorded; in an empty database, when it was migrated.
        due_routines: Routines with slots that have no outcome yet.
        active_runs: Runs that have not ended.
        due_webhooks: Webhooks that are due.
    """

    newest_record_at: datetime
    due_routines: int
    active_runs: int
    due_webhooks: int


class MovedIdentity(msgspec.Struct, frozen=True):
    """An identity that was moved on.

    Attributes:
        name: The table.
        last_id: The last id that this database had given out.
        next_id: The next id that it gives out.
    """

    name: str
    last_id: int
    next_id: int


_RESTORED_STATE = Statement("restore.restored_state", RestoredState)
_MOVE_IDENTITIES = Statement("restore.move_identities", MovedIdentity)


async def restored_state(connection: Connection) -> RestoredState:
    """Return how far the records reach, and what the programs will make up for."""
    return await _RESTORED_STATE.one(connection)


async def move_identities(connection: Connection, *, by: int = MOVED_BY) -> list[MovedIdentity]:
    """Move the identity of every table on, so that it repeats no id of a lost row. Safe to repeat, and under load."""
    return await _MOVE_IDENTITIES.all(connection, by=by)
