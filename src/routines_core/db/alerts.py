"""Judging alert rules: sql/queries/alerts.sql called from Python."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import msgspec

from routines_core.db.pool import Connection
from routines_core.db.statements import Statement

What = Literal["late", "events", "slow", "ends", "notices", "recoveries", "digests"]
"""The statements of a round, by their rows in alert_rounds."""
BATCH = 20_000
"""How many rows one statement handles."""


class Judged(msgspec.Struct, frozen=True):
    """What one statement did.

    Attributes:
        handled: Rows that it looked at or wrote; `BATCH` if there may be more.
        opened: Alerts that it opened, also those that were over or suppressed at once.
        recovered: Alerts that were over.
        suppressed: Alerts that a pause, a deletion or a change of the rule has suppressed.
        notices: Webhooks that it queued.
    """

    handled: int
    opened: int
    recovered: int
    suppressed: int
    notices: int


_ROUND: dict[What, Statement[Judged]] = {
    "late": Statement("alerts.open_late", Judged),
    "events": Statement("alerts.follow_events", Judged),
    "slow": Statement("alerts.open_slow", Judged),
    "ends": Statement("alerts.close_ended", Judged),
    "notices": Statement("alerts.queue_notices", Judged),
    "recoveries": Statement("alerts.queue_recoveries", Judged),
    "digests": Statement("alerts.queue_digests", Judged),
}
EVERY_SECONDS: Mapping[What, float] = {
    "late": 5,
    "events": 2,
    "slow": 15,
    "ends": 5,
    "notices": 2,
    "recoveries": 2,
    "digests": 15,
}
"""How often all workers together run each statement, in the order of a round: what was opened and is over by the same
round is told by one notice."""


async def judge(
    connection: Connection,
    what: What,
    *,
    every_seconds: float | None,
    batch_size: int = BATCH,
    now: datetime | None = None,
) -> Judged:
    """Run one statement of a round, unless it is another worker's turn.

    Args:
        connection: In autocommit mode.
        what: Which statement.
        every_seconds: Do nothing if a worker ran it less than this ago; None to run it regardless.
        batch_size: Rows that it handles; some statements handle all in one.
        now: Moves the clock in tests; None is the database's now().
    """
    paged = {} if what == "slow" else {"batch_size": batch_size}
    return await _ROUND[what].one(connection, every_seconds=every_seconds, now=now, **paged)
