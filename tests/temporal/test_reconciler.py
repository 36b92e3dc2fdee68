"""The reconciler settles runs that Temporal and the database disagree about."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import pytest
from temporalio import workflow
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from routines_core.db import Connection, dispatches, open_pool, runs
from routines_core.db.dispatches import Submission
from routines_core.db.runs import Checkpoint, StepRecord
from routines_engine.temporal.connection import TemporalError
from routines_engine.temporal.connection import connect as connect_to_temporal
from routines_engine.temporal.program import TemporalWorker
from routines_engine.temporal.submission import GENERATION, Submitter
from support.rows import KEYRING, Database, value
from support.temporal_working import settings_of
from support.working import run_of, task_of, until, workflow_of

pytestmark = pytest.mark.slow

ECHO = {"activity": "text_echo", "text": "hi"}
STATE = "SELECT status || ': ' || coalesce(error, '') FROM routines.trajectories"


@workflow.defn(name="FlowWorkflow")
class Stub:
    """A stub workflow: ends as it is told to, and writes nothing."""

    @workflow.run
    async def run(self, end: str) -> str:
        if end == "fails":
            raise ApplicationError("no", non_retryable=True)
        if end == "waits":
            await workflow.sleep(3600)
        return end


@dataclass
class Rig:
    """A reconciler, and one run that is dispatched but not submitted."""

    worker: TemporalWorker
    client: Client
    connection: Connection
    run: Submission

    async def submit(self, end: str, *, generation: int | None = None, seconds: float = 600) -> None:
        """Submit the run, to a stub that ends as told."""
        memo = {GENERATION: self.run.generation if generation is None else generation}
        await self.client.start_workflow(
            "FlowWorkflow", end, id=self.run.workflow_id, task_queue="stubs", memo=memo,
            execution_timeout=timedelta(seconds=seconds),
        )  # fmt: skip
        await dispatches.submitted(self.connection, [(self.run.id, self.run.generation)])

    async def write(self, *steps: StepRecord, status: str | None = None) -> bool:
        """Write to the run with the fence of its dispatch. Returns whether anything was written."""
        checkpoint = Checkpoint(self.run.id, self.run.generation, steps, status)
        return bool(await runs.write(self.connection, [checkpoint], lease_seconds=60))

    async def closed(self) -> None:
        handle = self.client.get_workflow_handle(self.run.workflow_id)
        async with asyncio.timeout(30):
            while (await handle.describe()).status == WorkflowExecutionStatus.RUNNING:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def settle(self) -> None:
        """Run the reconciler once, as if the run had long been silent."""
        await self.connection.execute("UPDATE routines.dispatches SET checked_at = now() - interval '1 hour'")
        await self.worker._reconciler.settle()


@asynccontextmanager
async def stubs(client: Client) -> AsyncGenerator[None]:
    async with Worker(client, task_queue="stubs", workflows=[Stub], workflow_runner=UnsandboxedWorkflowRunner()):
        yield


@pytest.fixture
async def rig(connection: Connection, database: Database, temporal: Client) -> AsyncGenerator[Rig]:
    await run_of(connection, await task_of(connection, "t", workflow_of(("one", ECHO))))
    async with open_pool(database.url, "routines-worker", size=2) as pool:
        settings = settings_of(temporal, temporal_task_queue="nobody")
        worker = TemporalWorker(settings, pool, asyncio.Event(), KEYRING)
        worker._client = temporal
        yield Rig(worker, temporal, connection, await dispatched_by(worker))


async def dispatched_by(worker: TemporalWorker) -> Submission:
    """Have the only run claimed and recorded as dispatched, but not submitted."""
    [run] = await worker._resources.ask_once(worker._dispatcher._claim, timeout_seconds=30)
    return run


async def completes(rig: Rig) -> None:
    async with stubs(rig.client):
        await rig.submit("completed")
        await rig.closed()


async def completes_with_all_recorded(rig: Rig) -> None:
    assert await rig.write(StepRecord("one", 0, "completed", "text_echo", {}, {"text": "hi"}))
    await completes(rig)


async def fails(rig: Rig) -> None:
    async with stubs(rig.client):
        await rig.submit("fails")
        await rig.closed()


async def is_cancelled(rig: Rig) -> None:
    async with stubs(rig.client):
        await rig.submit("waits")
        await rig.client.get_workflow_handle(rig.run.workflow_id).cancel()
        await rig.closed()


async def is_terminated(rig: Rig) -> None:
    await rig.submit("waits")
    await rig.client.get_workflow_handle(rig.run.workflow_id).terminate("by a test")


async def times_out(rig: Rig) -> None:
    await rig.submit("waits", seconds=1)
    await rig.closed()


async def was_another_databases(rig: Rig) -> None:
    async with stubs(rig.client):
        await rig.submit("completed", generation=99)
        await rig.closed()


@pytest.mark.parametrize(
    ("happens", "end"),
    [
        (completes, "failed: lost: it completed in Temporal, but not all of its steps are recorded"),
        (completes_with_all_recorded, "completed: "),
        (fails, "failed: failed in Temporal"),
        (is_cancelled, "cancelled: cancelled in Temporal"),
        (is_terminated, "failed: terminated in Temporal"),
        (times_out, "failed: deadline exceeded: the run took longer than it may"),
        (
            was_another_databases,
            "failed: Temporal already had a run with this workflow_id: use a namespace for this database only",
        ),
    ],
    ids=lambda given: getattr(given, "__name__", ""),
)
async def test_a_run_that_has_ended_only_in_temporal_ends_in_the_database(
    connection: Connection, rig: Rig, happens: Callable[[Rig], Awaitable[None]], end: str
) -> None:
    await happens(rig)
    assert await value(connection, STATE) == "running: "
    await rig.settle()
    assert await value(connection, STATE) == end
    assert await value(connection, "SELECT count(*) FROM routines.dispatches") == 0
    await rig.settle()
    assert await value(connection, STATE) == end


async def test_a_run_that_temporal_still_has_continues(connection: Connection, rig: Rig) -> None:
    await rig.submit("waits")
    before = await value(connection, "SELECT fence FROM routines.trajectories")
    await rig.settle()
    assert await value(connection, STATE) == "running: "
    assert await value(connection, "SELECT fence FROM routines.trajectories") == before


async def test_a_run_that_temporal_has_lost_counts_a_crash_and_is_requeued(connection: Connection, rig: Rig) -> None:
    for crashes in (1, 2):
        await dispatches.submitted(
            connection, [(rig.run.id, rig.run.generation)]
        )  # it was submitted, and then Temporal lost its data
        await rig.settle()
        back = "SELECT status || ' ' || engine || ' ' || crashes FROM routines.trajectories"
        assert await value(connection, back) == f"pending postgres {crashes}"
        assert await value(connection, "SELECT count(*) FROM routines.dispatches") == 0
        rig.run = await dispatched_by(rig.worker)
    await dispatches.submitted(connection, [(rig.run.id, rig.run.generation)])
    await rig.settle()
    assert await value(connection, STATE) == "failed: worker lost: Temporal no longer knows the run"


async def test_a_run_that_was_never_submitted_is_submitted(connection: Connection, rig: Rig) -> None:
    await rig.settle()
    assert await value(connection, "SELECT submitted_at IS NOT NULL FROM routines.dispatches")
    found = await rig.client.get_workflow_handle(rig.run.workflow_id).describe()
    assert found.status == WorkflowExecutionStatus.RUNNING


async def test_temporal_accepts_a_run_once(rig: Rig) -> None:
    """This holds for an ended run too: a later submission is told that Temporal has it."""
    submitter = Submitter(rig.worker.settings)
    accepted = [await submitter.submit(rig.client, rig.run) for _ in range(2)]
    handle = rig.client.get_workflow_handle(rig.run.workflow_id)
    first = (await handle.describe()).run_id
    await handle.terminate()
    accepted.append(await submitter.submit(rig.client, rig.run))
    assert accepted == [True, True, True]
    assert (await handle.describe()).run_id == first


async def test_a_run_taken_away_before_its_submission_is_forgotten(connection: Connection, rig: Rig) -> None:
    await connection.execute(
        "UPDATE routines.trajectories SET status = 'cancelled', fence = fence + 1, ended_at = now()"
    )
    await rig.worker._reconciler.cancel_taken()
    assert await value(connection, "SELECT count(*) FROM routines.dispatches") == 0


async def test_a_late_activity_cannot_claim_the_run(connection: Connection, rig: Rig) -> None:
    """It is late if it belongs to an earlier dispatch, an earlier activity, or an earlier attempt of the same one."""

    generation = rig.run.generation
    assert await taken(rig, 1, 1, "a") == generation + 1
    assert await taken(rig, 1, 2, "b") == generation + 2
    late = [(rig, 1, 1, "c"), (rig, 2, 1, "d", generation - 1), (rig, 2, 1, "e", generation + 1)]
    assert [await taken(*each) for each in late] == [None, None, None]
    assert not await rig.write(status="completed")  # with the fence of the dispatch
    assert await taken(rig, 2, 1, "f") == generation + 3
    assert await value(connection, CRASHES) == 2


CRASHES = "SELECT crashes FROM routines.trajectories"


async def taken(rig: Rig, sequence: int, attempt: int, holder: str, generation: int | None = None) -> int | None:
    """Claim the run as an activity does. Returns its fence; None if it cannot be claimed."""
    found = await dispatches.take(
        rig.connection,
        trajectory_id=rig.run.id,
        generation=rig.run.generation if generation is None else generation,
        sequence=sequence,
        attempt=attempt,
        holder=holder,
        worker="w",
    )
    return found and found.fence


async def test_a_claim_counts_a_crash_unless_the_holder_left_or_is_the_same(connection: Connection, rig: Rig) -> None:
    generation = rig.run.generation
    assert await taken(rig, 1, 1, "a") == generation + 1
    assert await taken(rig, 1, 1, "a") == generation + 2  # its answer was lost, and it is sent again
    assert await value(connection, CRASHES) == 0
    await dispatches.leave(connection, trajectory_id=rig.run.id, generation=generation, holder="a")
    assert await taken(rig, 2, 1, "b") == generation + 3
    await dispatches.leave(
        connection, trajectory_id=rig.run.id, generation=generation, holder="a"
    )  # no longer the holder
    assert await value(connection, CRASHES) == 0
    assert await taken(rig, 2, 1, "c") == generation + 4
    assert await value(connection, CRASHES) == 1


async def test_a_missing_server_or_namespace_is_named(temporal: Client) -> None:
    with pytest.raises(
        TemporalError, match=r"Temporal cannot be reached at 127\.0\.0\.1:1: .*ROUTINES_TEMPORAL_ADDRESS"
    ):
        await connect_to_temporal(settings_of(temporal, temporal_address="127.0.0.1:1"))
    with pytest.raises(TemporalError, match="has no namespace 'absent': create it, or set ROUTINES_TEMPORAL_NAMESPACE"):
        await connect_to_temporal(settings_of(temporal, temporal_namespace="absent"))


async def test_a_runs_end_its_webhook_and_the_wiping_of_its_secrets_are_one_transaction(
    connection: Connection, rig: Rig
) -> None:
    await connection.execute(
        """UPDATE routines.trajectories SET webhook_url = 'https://example.com/', secret_refs = '{"A": null}'"""
    )
    await is_terminated(rig)
    await rig.settle()
    await until(connection, "SELECT count(*) = 1 FROM routines.webhook_deliveries")
    assert await value(connection, "SELECT secret_refs FROM routines.trajectories") == {}
