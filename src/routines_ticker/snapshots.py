"""A watch for old snapshots: while one is open no dead row version can go, and claims wade through them."""

import time
from dataclasses import dataclass

import structlog

from routines_core.db import Connection
from routines_core.db import tick as db

OLD_SECONDS = 300.0
"""From this age on a snapshot is worth a warning."""
LOOK_SECONDS = 60.0
"""How often to look."""

log = structlog.get_logger("ticker")


@dataclass
class SnapshotWatch:
    """Looks at most once in `LOOK_SECONDS`.

    Attributes:
        old_seconds: From this age on a snapshot is warned of.
        takes_seconds: What a look may take: nobody looks with less time left until the next slot.
        age_seconds: How old the oldest was at the last look; 0: there was none, or nobody has looked yet.
    """

    old_seconds: float = OLD_SECONDS
    takes_seconds: float = 0.2
    age_seconds: float = 0.0
    _looks_at: float = 0.0

    async def look(self, connection: Connection) -> None:
        """Warn of the oldest snapshot where it is old, with its holder."""
        if time.monotonic() < self._looks_at:
            return
        self._looks_at = time.monotonic() + LOOK_SECONDS
        snapshot = await db.oldest_snapshot(connection)
        self.age_seconds = snapshot.age_seconds if snapshot else 0.0
        if snapshot and snapshot.age_seconds >= self.old_seconds:
            log.warning("an old snapshot slows the claims: end its transaction",
                        age_seconds=round(snapshot.age_seconds), holder=snapshot.holder)  # fmt: skip
