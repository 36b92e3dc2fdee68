"""Trouble in one loop of a worker never ends the worker, nor the runs in hand."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from routines_core.db import Connection
from routines_core.metrics.program import ProgramMetrics
from routines_engine.loops import repeat
from routines_engine.metrics import WorkerMetrics
from routines_workflow.activity import ACTIVITIES, StepContext, activity
from support.programs import program
from support.rows import Database, value
from support.working import run_of, task_of, until, until_ended, workflow_of, working

PASS_GATE = {"activity": "pass_gate"}
ECHO = {"activity": "text_echo", "text": "hi"}


class Nothing(msgspec.Struct):
    """No parameters."""


@pytest.fixture
def gate() -> Generator[asyncio.Event]:
    """A closed gate: a step `pass_gate` waits until the test opens it."""
    opened = asyncio.Event()

    @activity("Waits for the test.", Nothing)
    async def pass_gate(given: Nothing, _: StepContext) -> Nothing:
        await opened.wait()
        return given

    yield opened
    del ACTIVITIES["pass_gate"]


def failures(metrics: ProgramMetrics, loop: str, kind: str) -> float:
    labels = {"program": metrics.program, "loop": loop, "kind": kind}
    return metrics.registry.get_sample_value("routines_process_loop_failures_total", labels) or 0.0


@asynccontextmanager
async def renamed(connection: Connection, table: str) -> AsyncGenerator[None]:
    await connection.execute(f"ALTER TABLE routines.{table} RENAME TO gone".encode())
    yield
    await connection.execute(f"ALTER TABLE routines.gone RENAME TO {table}".encode())


async def until_true(condition: object) -> None:
    async with asyncio.timeout(30):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110 - counted in this process
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("table", ["trajectories", "steps", "wakeups"])
async def test_a_run_in_hand_survives_a_table_that_is_missing_for_a_while(
    connection: Connection, database: Database, gate: asyncio.Event, table: str
) -> None:
    run = await run_of(connection, await task_of(connection, "t", workflow_of(("wait", PASS_GATE), ("say", ECHO))))
    with capture_logs() as said:
        async with working(database.url) as worker:
            await until(connection, "SELECT count(*) = 1 FROM routines.steps")
            loop = "journal" if table == "steps" else "claim_or_wait"
            async with renamed(connection, table):
                gate.set()
                await until_true(lambda: failures(worker.metrics, loop, "refused") >= 2)
            assert await until_ended(connection, run) == ("completed", None)
    logged = [line for line in said if line.get("loop") == loop and line["event"] == "refused, retrying"]
    assert len({line["object"] for line in logged}) == len(logged) >= 1  # each of them once
    assert all(line["sqlstate"] == "42P01" and "routines migrate" in line["remedy"] for line in logged)
    assert await value(connection, "SELECT crashes FROM routines.trajectories") == 0


async def test_a_run_waits_for_a_right_that_was_revoked(connection: Connection, database: Database) -> None:
    """Reading a secret is refused: the step is not at fault, and the run goes on once the right is back."""
    step = {"activity": "text_echo", "text_path": "secret_params.TOKEN"}
    run = await run_of(connection, await task_of(connection, "t", workflow_of(("say", step))))
    with capture_logs() as said:
        async with renamed(connection, "secrets"), working(database.url) as worker:
            await until_true(lambda: failures(worker.metrics, "queries", "refused") >= 2)
            await connection.execute("CREATE VIEW routines.unused AS SELECT 1 AS one")
            status = await value(connection, "SELECT status FROM routines.trajectories")
            assert status == "running"
            await connection.execute("ALTER TABLE routines.gone RENAME TO secrets")
            ended = await until_ended(connection, run)
            await connection.execute("ALTER TABLE routines.secrets RENAME TO gone")
    assert ended[0] in {"completed", "failed"}
    assert "internal error" not in str(ended[1])
    assert [line["object"] for line in said if line.get("loop") == "queries" and "object" in line]


async def test_a_bug_in_one_job_is_logged_once_and_the_job_is_repeated() -> None:
    stop, metrics, calls = asyncio.Event(), WorkerMetrics(), 0

    async def job() -> bool:
        nonlocal calls
        calls += 1
        if calls == 4:
            stop.set()
        raise KeyError("broken")

    with capture_logs() as said:
        await repeat(stop, job, 0, metrics, name="job", longest_seconds=0.01)
    assert failures(metrics, "job", "bug") == 4
    assert [line["event"] for line in said] == ["unexpected error, retrying"]
    assert said[0]["error"] == "KeyError"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "loop"), [("webhook_deliveries", "deliveries"), ("retention", "retention"), ("limited_runs", None)]
)
async def test_a_worker_program_lives_through_a_missing_table_and_works_afterwards(
    connection: Connection, database: Database, tmp_path: Path, table: str, loop: str | None
) -> None:
    async with renamed(connection, table):
        with program("worker", database.url, tmp_path) as worker:
            await asyncio.to_thread(worker.until_said, '"working"')
            if loop:
                await asyncio.to_thread(worker.until_said, f'"loop": "{loop}"')
            else:
                await asyncio.to_thread(worker.until_said, "limited_runs")
            assert worker.process.poll() is None
            await connection.execute(f"ALTER TABLE routines.gone RENAME TO {table}".encode())
            run = await run_of(connection, await task_of(connection, "t", workflow_of(("say", ECHO))))
            assert await until_ended(connection, run) == ("completed", None)
            await connection.execute(f"ALTER TABLE routines.{table} RENAME TO gone".encode())
            worker.process.terminate()
            assert await asyncio.to_thread(worker.end) == 0
