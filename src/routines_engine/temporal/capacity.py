"""The capacity of a Temporal worker. A step that waits for children takes none, or parents could block their children.

What is called a slot here is the SDK's word for a unit of capacity.
"""

import asyncio
import threading
from collections.abc import Callable

from temporalio.worker import (
    CustomSlotSupplier,
    FixedSizeSlotSupplier,
    SlotMarkUsedContext,
    SlotPermit,
    SlotReleaseContext,
    SlotReserveContext,
    WorkerTuner,
)

LOOK_SECONDS = 0.05
"""How often a full worker looks for free capacity: a step that begins to wait for a child does not announce it."""
WORKFLOW_CONCURRENCY = 100
"""Workflows that one worker decides on at once; each takes it a few milliseconds."""


class StepCapacity(CustomSlotSupplier):
    """Limits the steps running at once, not counting those that wait. The SDK's threads call it too."""

    def __init__(self, concurrency: int, waiting: Callable[[], int]) -> None:
        self._concurrency = concurrency
        self._waiting = waiting
        self._used = 0
        self._lock = threading.Lock()

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:
        """Wait for free capacity and take it."""
        while (permit := self.try_reserve_slot(ctx)) is None:  # noqa: ASYNC110 - other threads free it
            await asyncio.sleep(LOOK_SECONDS)
        return permit

    def try_reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit | None:  # noqa: ARG002 - the SDK's signature
        """Take capacity; returns None if none is free."""
        with self._lock:
            if self._used - self._waiting() >= self._concurrency:
                return None
            self._used += 1
        return SlotPermit()

    def mark_slot_used(self, ctx: SlotMarkUsedContext) -> None:
        """Do nothing: capacity counts as used once it is reserved."""

    def release_slot(self, ctx: SlotReleaseContext) -> None:  # noqa: ARG002 - the SDK's signature
        """Free the capacity of an activity that has ended."""
        with self._lock:
            self._used -= 1


def tuner_of(concurrency: int, waiting: Callable[[], int]) -> WorkerTuner:
    """Return the SDK's limits for a worker that runs `concurrency` steps at once, not counting those that wait."""
    return WorkerTuner.create_composite(
        workflow_supplier=FixedSizeSlotSupplier(WORKFLOW_CONCURRENCY),
        activity_supplier=StepCapacity(concurrency, waiting),
        local_activity_supplier=FixedSizeSlotSupplier(1),
        nexus_supplier=FixedSizeSlotSupplier(1),
    )
