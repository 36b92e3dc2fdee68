"""Set hosts' clocks wrong by an hour: only the database's clock decides what is due and whose lease has expired."""

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from chaos import fleet as module
from chaos.fleet import Fleet
from chaos.wrong_clock import wrong_clock
from routines_core.db import Connection
from support.rows import Database, at, make_routine, make_task, value

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not wrong_clock(1), reason="needs Linux and a C compiler to give a process a wrong clock"),
]
HOUR = 3600
FIRED_LATE_SECONDS = 10
"""Generous for busy machines: a fire comes within milliseconds of its slot."""
LEASE_SECONDS = 2.0
WORKFLOW = """{"steps": ["one", "two"], "step_configs": {
    "one": {"activity": "chaos_work", "step": "one", "seconds": 3},
    "two": {"activity": "chaos_work", "step": "two"}}}"""


async def until(connection: Connection, query: str, *parameters: object) -> None:
    """Wait until the query's single value is true."""
    async with asyncio.timeout(30):
        while not await value(connection, query, *parameters):
            await asyncio.sleep(0.02)


def fleet(database: Database, directory: Path) -> Fleet:
    return Fleet(directory, lambda _: database.url, {"ROUTINES_LEASE_SECONDS": str(LEASE_SECONDS)})


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
def test_a_process_sees_the_wrong_time(seconds: int) -> None:
    command = [sys.executable, "-c", "import time, datetime; print(time.time(), datetime.datetime.now().timestamp())"]
    shown = subprocess.run(
        command, env={**os.environ, **wrong_clock(seconds)}, check=True, capture_output=True, text=True
    )
    for time in map(float, shown.stdout.split()):
        assert abs(time - datetime.now(UTC).timestamp() - seconds) < HOUR / 2


@pytest.mark.parametrize("seconds", [HOUR, -HOUR], ids=["ahead", "behind"])
async def test_tickers_whose_clocks_are_an_hour_off_fire_each_slot_once_and_on_time(
    connection: Connection, database: Database, tmp_path: Path, seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOCKS_SECONDS", (seconds,))
    task = await make_task(connection)
    for number in range(3):
        await make_routine(connection, task, at("2026-05-04 09:00"), name=f"routine-{number}")
    await connection.execute(
        """UPDATE routines.routines SET settled_until = now(),
                  next_run_at = date_trunc('second', now()) + (2 + id % 2) * interval '1 second'"""
    )
    slots = await value(connection, "SELECT array_agg(next_run_at ORDER BY id) FROM routines.routines")
    tickers = fleet(database, tmp_path)
    try:
        tickers.start(tickers=2, workers=0)
        await until(connection, "SELECT count(*) = 3 FROM routines.occurrences")
    finally:
        tickers.kill()
    fired = "SELECT array_agg(scheduled_for ORDER BY triggered_by_routine_id) FROM routines.trajectories"
    assert await value(connection, fired) == slots
    in_time = """SELECT bool_and(created_at - scheduled_for BETWEEN '0' AND %s * interval '1 second')
                 FROM routines.trajectories"""
    assert await value(connection, in_time, FIRED_LATE_SECONDS) is True


async def test_workers_whose_clocks_are_an_hour_off_keep_and_respect_leases(
    connection: Connection, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step outlasts the lease: its worker renews it, and no other claims the run, whatever their clocks say."""
    monkeypatch.setattr(module, "CLOCKS_SECONDS", (HOUR, -HOUR))
    task = await make_task(connection, WORKFLOW)
    await connection.execute(
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params)
           SELECT 1, %s, 1, 'api', '{}' FROM generate_series(1, 4)""",
        [task],
    )
    workers = fleet(database, tmp_path)
    try:
        workers.start(tickers=0, workers=2)
        await until(connection, "SELECT bool_and(status = 'running') FROM routines.trajectories")
        ahead = """SELECT bool_and(lease_expires_at - now() BETWEEN '0' AND %s * interval '1 second')
                   FROM routines.trajectories"""
        assert await value(connection, ahead, LEASE_SECONDS) is True
        await until(connection, "SELECT bool_and(ended_at IS NOT NULL) FROM routines.trajectories")
    finally:
        workers.kill()
    kept = "SELECT bool_and(status = 'completed' AND fence = 1) FROM routines.trajectories"
    assert await value(connection, kept) is True
