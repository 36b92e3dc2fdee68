"""What a worker knows of the limits of its runs: read at most once a second for each collection."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from routines_core.bulkhead import Bulkhead
from routines_core.db.limits import RunLimits
from routines_core.limits import LIMITS

FRESH_SECONDS = 1.0
"""How old the limits may be that a run gets."""
MOST_COLLECTIONS = 1000
"""The number of collections whose limits are kept; those least recently asked for are dropped."""
BUILT_IN = RunLimits(**{name.removeprefix("run_"): rule.default for name, rule in LIMITS.items() if rule.of_run})

Read = Callable[[int], Awaitable[RunLimits]]


@dataclass
class _Known:
    limits: RunLimits = BUILT_IN
    fresh_until: float = 0.0
    reading: asyncio.Task[None] | None = None


@dataclass
class RunLimitsCache:
    """The limits of runs by collection; concurrent runs share each query.

    Attributes:
        bulkhead: Notes that they cannot be read.
    """

    bulkhead: Bulkhead = field(default_factory=lambda: Bulkhead("run_limits"))

    _known: "OrderedDict[int, _Known]" = field(default_factory=OrderedDict[int, _Known])

    async def of(self, collection_id: int, read: Read) -> RunLimits:
        """Return the limits of each run of a collection, at most FRESH_SECONDS old.

        If they cannot be read, the last known ones apply, or the built-in ones, so that no run fails because of it.

        Args:
            collection_id: The collection.
            read: Reads them from the database.
        """
        known = self._known.setdefault(collection_id, _Known())
        self._known.move_to_end(collection_id)
        if len(self._known) > MOST_COLLECTIONS:
            self._known.popitem(last=False)
        if time.monotonic() >= known.fresh_until:
            if known.reading is None or known.reading.done():
                known.reading = asyncio.create_task(self._refresh(known, collection_id, read))
            await asyncio.shield(known.reading)
        return known.limits

    async def _refresh(self, known: _Known, collection_id: int, read: Read) -> None:
        began_at = time.monotonic()
        try:
            known.limits = await read(collection_id)
        except Exception as error:  # noqa: BLE001 - no run fails because of it
            self.bulkhead.failed(error)
        else:
            self.bulkhead.worked()
        known.fresh_until = began_at + FRESH_SECONDS
