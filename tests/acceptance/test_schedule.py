"""Run schedules in real time with real tickers: each slot fires once, however many tickers run."""

import signal
import subprocess
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from routines_core.db import Connection
from support.rows import Database, make_task
from support.service import ROUTINES, Service, clean_environment, wait_until

pytestmark = pytest.mark.slow
TICKERS = 4
DUE = 500


@pytest.mark.timeout(240)
def test_a_routine_created_by_http_fires_once_when_its_minute_comes(service: Service) -> None:
    # At least 5 s ahead, so that the routine exists before its slot.
    slot = (datetime.now(UTC) + timedelta(seconds=65)).replace(second=0, microsecond=0)
    with service.client() as client:
        cadence = {"type": "hourly", "minute_utc": slot.minute}
        made = client.post("/routines/demo/hello", json={"name": "next-minute", "cadence": cadence})
        assert made.status_code == 201
        assert made.json()["next_run_at"] == iso(slot)
        path = "/routines/demo/hello/next-minute"
        # Wait for the real clock: a real slot is the point of this test.
        wait_until(lambda: [run["status"] for run in client.get(f"{path}/runs").json()] == ["completed"], seconds=100)
        [run] = client.get(f"{path}/runs").json()
        assert run["scheduled_for"] == iso(slot)
        assert run["trigger"] == "schedule"
        routine = client.get(path).json()
        assert routine["next_run_at"] == iso(slot + timedelta(hours=1))
        assert slot <= datetime.fromisoformat(routine["last_run_at"]) < slot + timedelta(seconds=10)
    ledger = service.execute(
        "SELECT outcome, scheduled_for FROM routines.occurrences JOIN routines.routines "
        "ON routines.id = routine_id WHERE name = 'next-minute'"
    )
    assert ledger == [("started", slot)]


def iso(moment: datetime) -> str:
    """Format a time as the API does."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


@contextmanager
def ticker(database: Database) -> Generator[subprocess.Popen[bytes]]:
    """Yield a `routines ticker` process with small batches, so that it needs many of them."""
    environment = {**clean_environment(), "DATABASE_URL": database.url, "ROUTINES_TICK_BATCH_SIZE": "5"}
    with subprocess.Popen([*ROUTINES, "ticker"], env=environment, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


async def test_four_tickers_fire_each_of_five_hundred_due_slots_once(
    database: Database, connection: Connection
) -> None:
    await make_due(connection, await make_task(connection))
    with ExitStack() as stack:
        tickers = [stack.enter_context(ticker(database)) for _ in range(TICKERS)]
        with psycopg.connect(database.url, autocommit=True) as observer:
            wait_until(
                lambda: count(observer, "pg_stat_activity WHERE application_name = 'routines-ticker'") == TICKERS
            )
            with psycopg.connect(database.url) as gate:
                # No run can be inserted until every ticker is waiting at the gate with a batch of its own.
                gate.execute("LOCK TABLE routines.trajectories IN SHARE MODE")
                observer.execute("UPDATE routines.routines SET next_run_at = date_trunc('minute', now())")
                wait_until(
                    lambda: (
                        count(
                            observer, "pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
                        )
                        == TICKERS
                    )
                )
            wait_until(lambda: count(observer, "routines.trajectories") == DUE)
        for process in tickers:
            process.send_signal(signal.SIGTERM)
        logs = [process.communicate(timeout=10)[1] for process in tickers]
    assert [process.returncode for process in tickers] == [0] * TICKERS
    # Every ticker fired something, and after all have ended there is still one run for each slot.
    assert all(b"fired=" in log for log in logs)
    cursor = await connection.execute(
        "SELECT count(*), count(DISTINCT triggered_by_routine_id), count(DISTINCT scheduled_for) "
        "FROM routines.trajectories"
    )
    assert await cursor.fetchone() == (DUE, DUE, 1)


async def make_due(connection: Connection, task_id: int) -> None:
    """Create hourly routines that are not due yet."""
    await connection.execute(
        """INSERT INTO routines.routines (collection_id, task_id, name, cadence_type)
           SELECT collection_id, id, 'due-' || number, 'hourly'
           FROM routines.tasks, generate_series(1, %s) AS number WHERE id = %s""",
        [DUE, task_id],
    )
    await connection.execute("UPDATE routines.routines SET next_run_at = now() + interval '1 day'")


def count(observer: psycopg.Connection[Any], rows: str) -> int:
    """Return the number of rows."""
    row = observer.execute(f"SELECT count(*) FROM {rows}".encode()).fetchone()
    assert row
    return row[0]
