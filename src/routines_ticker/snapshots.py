"""Watches for old snapshots: while one is open, vacuum removes no dead rows and claims must skip over them."""

import time
from dataclasses import dataclass

import structlog

from routines_core.db import Connection
from routines_core.db import tick as db

OLD_SECONDS = 300.0
"""Age from which a snapshot is worth a warning."""
LOOK_SECONDS = 60.0
"""Interval between checks."""

log = structlog.get_logger("ticker")


@dataclass
class SnapshotWatch:
    """Checks at most once every `LOOK_SECONDS`.

    Attributes:
        old_seconds: Age from which a snapshot causes a warning.
        takes_seconds: Time a check may take; the ticker does not check with less time left until the next slot.
        age_seconds: Age of the oldest snapshot at the last check; 0 if there was none or nothing was checked yet.
    """

    old_seconds: float = OLD_SECONDS
    takes_seconds: float = 0.2
    age_seconds: float = 0.0
    _looks_at: float = 0.0

    async def look(self, connection: Connection) -> None:
        """Check if it is time, and log a warning with the holder if the oldest snapshot is old."""
        if time.monotonic() < self._looks_at:
            return
        self._looks_at = time.monotonic() + LOOK_SECONDS
        snapshot = await db.oldest_snapshot(connection)
        self.age_seconds = snapshot.age_seconds if snapshot else 0.0
        if snapshot and snapshot.age_seconds >= self.old_seconds:
            log.warning("old snapshot slows claims, end its transaction",
                        age_seconds=round(snapshot.age_seconds), holder=snapshot.holder)  # fmt: skip
