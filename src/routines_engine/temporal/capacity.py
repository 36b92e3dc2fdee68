"""The capacity of a Temporal worker. A run that waits for children takes none, or parents could block their children.

What is called a slot here is the SDK's word for a unit of capacity.
"""

import asyncio
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
"""How often a full worker looks for free capacity: a run that begins to wait for a child does not announce it."""
POLLERS = 3
"""How many requests for each kind of task a worker keeps waiting at Temporal. Few, because a worker begins what it has
dispatched without one, and because each may take a task into a worker that is frozen."""
MOST_HELD = 10_000
"""How many runs one worker may go on with at most, with those that wait for children."""


def workflow_tasks_of(concurrency: int) -> int:
    """Return how many workflows a worker decides on at once.

    Each takes as long as its run if that is quick. Twice the concurrency, since the answers of as many again may be on
    their way to Temporal.
    """
    return 2 * concurrency + POLLERS


def cached_workflows_of(concurrency: int) -> int:
    """Return how many open workflows a worker keeps: those it decides on, and as many whose runs take long."""
    return 2 * workflow_tasks_of(concurrency)


class RunCapacity(CustomSlotSupplier):
    """Accepts runs from other workers while there is capacity. The SDK's threads call it too."""

    def __init__(self, is_full: Callable[[], bool]) -> None:
        self._is_full = is_full

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:
        """Wait for free capacity and take it."""
        while (permit := self.try_reserve_slot(ctx)) is None:  # noqa: ASYNC110 - other threads free it
            await asyncio.sleep(LOOK_SECONDS)
        return permit

    def try_reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit | None:  # noqa: ARG002 - the SDK's signature
        """Take capacity; returns None if none is free."""
        return None if self._is_full() else SlotPermit()

    def mark_slot_used(self, ctx: SlotMarkUsedContext) -> None:
        """Do nothing: the run itself takes the capacity."""

    def release_slot(self, ctx: SlotReleaseContext) -> None:
        """Do nothing: the run itself frees the capacity."""


def tuner_of(concurrency: int, is_full: Callable[[], bool]) -> WorkerTuner:
    """Return the SDK's limits for a worker that executes `concurrency` runs at once, not counting those that wait."""
    return WorkerTuner.create_composite(
        workflow_supplier=FixedSizeSlotSupplier(workflow_tasks_of(concurrency)),
        activity_supplier=RunCapacity(is_full),
        local_activity_supplier=FixedSizeSlotSupplier(workflow_tasks_of(concurrency)),
        nexus_supplier=FixedSizeSlotSupplier(1),
    )
