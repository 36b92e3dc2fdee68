"""The slots of a worker of Temporal: a step that waits for children takes none, or parents might wait for ever."""

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
"""How often a worker that is full looks for a free slot: children begin to be waited for without a word."""
WORKFLOW_SLOTS = 100
"""Workflows that one worker decides on at once: each takes it some milliseconds."""


class StepCapacity(CustomSlotSupplier):
    """At most so many steps at once, those that wait not counted. Called from the threads of the SDK too."""

    def __init__(self, most: int, waiting: Callable[[], int]) -> None:
        self._most = most
        self._waiting = waiting
        self._used = 0
        self._lock = threading.Lock()

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:
        """A slot, once there is one."""
        while (permit := self.try_reserve_slot(ctx)) is None:  # noqa: ASYNC110 - what frees one comes from other threads
            await asyncio.sleep(LOOK_SECONDS)
        return permit

    def try_reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit | None:  # noqa: ARG002 - the SDK's signature
        """A slot; None: there is none."""
        with self._lock:
            if self._used - self._waiting() >= self._most:
                return None
            self._used += 1
        return SlotPermit()

    def mark_slot_used(self, ctx: SlotMarkUsedContext) -> None:
        """Nothing: a slot counts from its reservation on."""

    def release_slot(self, ctx: SlotReleaseContext) -> None:  # noqa: ARG002 - the SDK's signature
        """Count it as free."""
        with self._lock:
            self._used -= 1


def tuner_of(most: int, waiting: Callable[[], int]) -> WorkerTuner:
    """The slots of a worker: `most` steps at once, beside those that wait."""
    return WorkerTuner.create_composite(
        workflow_supplier=FixedSizeSlotSupplier(WORKFLOW_SLOTS),
        activity_supplier=StepCapacity(most, waiting),
        local_activity_supplier=FixedSizeSlotSupplier(1),
        nexus_supplier=FixedSizeSlotSupplier(1),
    )
