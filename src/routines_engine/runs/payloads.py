"""Loads what a step process needs of a run. The worker passes it on as text and never reads it."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

from routines_core.db import runs
from routines_core.db.runs import Claim, Loaded
from routines_core.errors import InvalidError
from routines_engine.runs.claimed_run import LostRunError
from routines_engine.runs.services import WorkerResources
from routines_engine.sandbox.messages import Payload

CACHE_BYTES = 32 * 1024 * 1024
"""Maximum size of the cache of recently used workflows, in bytes."""


@dataclass
class Payloads:
    """The payloads of one worker's runs.

    Attributes:
        resources: What the worker's runs share.
        allow_private: Whether steps may send requests to loopback and private addresses.
        most_bytes: How much the steps of a run may hold, whatever the limits of its collection are.
    """

    resources: WorkerResources
    allow_private: bool
    most_bytes: int
    _workflows: "OrderedDict[tuple[int, int], asyncio.Task[bytes]]" = field(
        default_factory=OrderedDict[tuple[int, int], "asyncio.Task[bytes]"]
    )

    async def load(self, run: Claim) -> Payload:
        """Return the payload of a run that was claimed just now.

        Raises:
            LostRunError: The run no longer belongs to this worker.
            InvalidError: Its version of the workflow was deleted, or its steps hold too much.
        """
        if run.init_params is None:
            return await self.reload(run)
        return await self._payload(run, await self._workflow(run), Loaded(run.init_params, "{}", {}))

    async def reload(self, run: Claim) -> Payload:
        """Return the payload of a run as it stands after its last checkpoint; raises as `load` does."""
        # Not less than the setting: a lowered limit fails the next step, which can say so.
        found = await self.resources.ask_for(
            run, lambda connection: runs.load(connection, run, most_bytes=2 * self.most_bytes)
        )
        if found is None:
            raise LostRunError(run.id)
        # Twice the setting: it may have been higher when the run began, and JSON from Postgres has more whitespace.
        if found.finished_steps is None or len(found.finished_steps) > 2 * self.most_bytes:
            raise InvalidError(f"the run's steps hold more than the limit of {self.most_bytes} bytes")
        return await self._payload(run, await self._workflow(run), found)

    async def _payload(self, run: Claim, workflow: bytes, found: Loaded) -> Payload:
        limits = await self.resources.run_limits(run.collection_id)
        return Payload(
            workflow,
            found.init_params.encode(),
            (found.finished_steps or "{}").encode(),
            found.attempts,
            run.workflow_id,
            run.run_id,
            self.allow_private,
            self.most_bytes if limits.step_bytes is None else min(self.most_bytes, limits.step_bytes),
            limits,
            found.finished,
            found.log_events,
        )

    async def _workflow(self, run: Claim) -> bytes:
        """Return the run's version of its workflow; runs that need the same version share one query."""
        key = run.task_id, run.task_version
        loading = self._workflows.get(key)
        if loading is None:
            loading = self._workflows[key] = asyncio.create_task(self._load_workflow(run))
        self._workflows.move_to_end(key)
        if loading.done() and not loading.cancelled() and loading.exception() is None:
            return loading.result()
        try:
            return await asyncio.shield(loading)
        finally:
            self._shrink()

    async def _load_workflow(self, run: Claim) -> bytes:
        found = await self.resources.ask_for(
            run, lambda connection: runs.load_workflow(connection, task_id=run.task_id, version=run.task_version)
        )
        if found is None:
            raise InvalidError("the version of the workflow that it started with was deleted")
        return found.encode()

    def _shrink(self) -> None:
        """Drop failed loads, and the least recently used workflows while the cache is too large."""
        loaded = {key: task for key, task in self._workflows.items() if task.done()}
        for key, task in loaded.items():
            if task.cancelled() or task.exception() is not None:
                del self._workflows[key]
        size = sum(len(task.result()) for key, task in loaded.items() if key in self._workflows)
        for key in loaded:
            if size <= CACHE_BYTES:
                return
            if key in self._workflows:
                size -= len(self._workflows.pop(key).result())
