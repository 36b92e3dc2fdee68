"""The command line with ROUTINES_ENGINE=temporal: what it needs and reports."""

import subprocess
import sys
from pathlib import Path

import pytest
from temporalio.client import Client

from routines_core.db import Connection
from support.rows import ENCRYPTION_KEYS, Database
from support.service import Service, clean_environment, free_port, wait_until
from support.temporal_server import TemporalServer

WITHOUT_SDK = "import sys; sys.modules['temporalio'] = None; from routines_cli.main import main; main()"


def command(database: Database, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    shown = {"DATABASE_URL": database.url, "ROUTINES_ENCRYPTION_KEYS": ENCRYPTION_KEYS, "ROUTINES_ENGINE": "temporal"}
    return subprocess.run(
        [sys.executable, *arguments],
        env=clean_environment() | shown | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def doctor(database: Database, **environment: str) -> tuple[int, str]:
    """Run `routines doctor`. Returns its exit code and its line on the engine."""
    done = command(database, "-m", "routines_cli.main", "doctor", **environment)
    [line] = [line for line in done.stdout.splitlines() if line.startswith("engine")]
    return done.returncode, line


async def test_doctor_asks_temporal_and_counts_its_runs(
    connection: Connection, database: Database, temporal: Client, temporal_server: TemporalServer
) -> None:
    place = {
        "ROUTINES_TEMPORAL_ADDRESS": temporal_server.address,
        "ROUTINES_TEMPORAL_NAMESPACE": temporal.namespace,
    }
    await connection.execute(
        """WITH made AS (INSERT INTO routines.collections (name) VALUES ('c') RETURNING id)
           INSERT INTO routines.dispatches (trajectory_id, collection_id, workflow_id, generation, fence)
           SELECT 1, id, 'w', 1, 1 FROM made"""
    )
    code, line = doctor(database, **place)
    assert (code, line.endswith("reachable; 1 runs handed to Temporal, 1 not confirmed")) == (0, True)
    code, line = doctor(database, ROUTINES_ENGINE="postgres")
    assert (code, line) == (0, "engine    postgres; 1 runs handed to Temporal, 1 not confirmed")
    code, line = doctor(database, ROUTINES_TEMPORAL_ADDRESS=f"127.0.0.1:{free_port()}")
    assert code == 1
    assert "cannot be reached" in line


def test_without_the_sdk_it_says_what_to_install(database: Database) -> None:
    done = command(database, "-c", WITHOUT_SDK, "worker")
    assert done.returncode == 1
    assert done.stderr == (
        "routines: ROUTINES_ENGINE=temporal needs Temporal's Python SDK: pip install 'routines-scheduler[temporal]'.\n"
    )


def test_the_postgres_engine_does_not_import_the_sdk() -> None:
    script = "import sys, routines_cli.engines, routines_engine.runs.worker; sys.exit('temporalio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.slow
def test_up_refuses_to_start_if_no_temporal_server_answers(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    line = Service(tmp_path, ROUTINES_ENGINE="temporal", ROUTINES_TEMPORAL_ADDRESS=address).refusal()
    assert line == (
        f"routines: Temporal cannot be reached at {address}: start a server there, or set ROUTINES_TEMPORAL_ADDRESS."
    )


@pytest.mark.slow
def test_up_executes_its_runs_on_temporal(tmp_path: Path, temporal: Client, temporal_server: TemporalServer) -> None:
    service = Service(
        tmp_path,
        ROUTINES_ENGINE="temporal",
        ROUTINES_TEMPORAL_ADDRESS=temporal_server.address,
        ROUTINES_TEMPORAL_NAMESPACE=temporal.namespace,
    )
    service.start()
    try:
        with service.client() as client:
            run = client.post("/routines/demo/hello/every-hour/run-now").json()["trajectory_id"]
            path = f"/db/trajectory/demo/hello/{run}"
            wait_until(lambda: client.get(path).json()["status"] == "completed")
            assert client.get(path).json()["steps"]["greet"]["outputs"] == {"text": "Good morning, world!"}
        assert service.execute("SELECT DISTINCT engine FROM routines.trajectories") == [("temporal",)]
    finally:
        service.stop()
