"""Watches for old snapshots: while one is open, vacuum removes no dead rows and claims must skip over them."""

import time
from dataclasses import dataclass, field

import structlog

from routines_core.bulkhead import Bulkhead
from routines_core.db import Connection
from routines_core.db import tick as db
from routines_core.diagnosis import diagnose

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
        bulkhead: Notes that it cannot be looked at.
    """

    old_seconds: float = OLD_SECONDS
    takes_seconds: float = 0.2
    age_seconds: float = 0.0
    bulkhead: Bulkhead = field(default_factory=lambda: Bulkhead("snapshots"))
    _looks_at: float = 0.0

    async def look(self, connection: Connection) -> None:
        """Check if it is time, and log a warning with the holder if the oldest snapshot is old."""
        if time.monotonic() < self._looks_at:
            return
        self._looks_at = time.monotonic() + LOOK_SECONDS
        try:
            snapshot = await db.oldest_snapshot(connection)
        except Exception as error:
            if diagnose(error).kind == "away":
                raise
            self.bulkhead.failed(error)  # the ticker ticks without it
            return
        self.bulkhead.worked()
        self.age_seconds = snapshot.age_seconds if snapshot else 0.0
        if snapshot and snapshot.age_seconds >= self.old_seconds:
            log.warning("old snapshot slows claims, end its transaction",
                        age_seconds=round(snapshot.age_seconds), holder=snapshot.holder)  # fmt: skip
