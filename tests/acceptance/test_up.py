"""Run `routines up`: what it creates, how it refuses to start, how it stops."""

import os
import signal
import time
from pathlib import Path

import psycopg
import pytest

from routines_core.embedded import running_url
from support.account import ordinary_user
from support.rows import with_database
from support.service import Service, descendants, free_port, process_table, wait_until

pytestmark = pytest.mark.slow


def test_the_demo_routine_can_be_run_and_its_trajectory_read(service: Service) -> None:
    with service.client() as client:
        run = client.post("/routines/demo/hello/every-hour/run-now").json()["trajectory_id"]
        path = f"/db/trajectory/demo/hello/{run}"
        wait_until(lambda: client.get(path).json()["status"] == "completed")
        assert client.get(path).json()["steps"]["greet"]["outputs"] == {"text": "Good morning, world!"}


def test_a_restart_keeps_the_demo_routine_and_its_key(service: Service) -> None:
    made = service.execute("SELECT id, name, created_at FROM routines.routines")
    key = (service.data_dir / "demo.key").read_text()
    service.stop()
    service.start()
    assert service.execute("SELECT id, name, created_at FROM routines.routines") == made
    assert (service.data_dir / "demo.key").read_text() == key


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everything_within_ten_seconds_and_leaves_no_process(
    service: Service, number: signal.Signals
) -> None:
    started = descendants(service.process.pid)
    assert sum("routines_cli.main" in command for command in started.values()) == 3
    assert sum("postgres" in command for command in started.values()) >= 4
    asked = time.monotonic()
    service.process.send_signal(number)
    assert service.process.wait(timeout=10) == 0
    assert time.monotonic() - asked < 10
    left = {pid: command for pid, (_, command) in process_table().items()}
    assert not {pid: left[pid] for pid, command in started.items() if left.get(pid) == command}
    assert not [command for command in left.values() if str(service.data_dir) in command]
    assert running_url(service.data_dir) is None


def test_it_stops_in_time_while_its_programs_are_frozen(service: Service) -> None:
    frozen = [service.program_pid(name) for name in ("api", "ticker", "worker")]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    service.stop()
    assert not frozen & process_table().keys()


def test_a_port_in_use_is_reported_in_one_line(service: Service, tmp_path: Path) -> None:
    other = Service(tmp_path, ROUTINES_PORT=service.url.rpartition(":")[2], ROUTINES_DATA_DIR=str(tmp_path / "other"))
    assert "set ROUTINES_PORT to a free port" in other.refusal()


def test_a_second_up_in_the_same_data_directory_is_reported_in_one_line(service: Service, tmp_path: Path) -> None:
    assert "Another `routines up` is running in" in Service(tmp_path).refusal()


def test_an_unreachable_database_is_reported_in_one_line(tmp_path: Path) -> None:
    url = f"postgresql://routines:hidden-password@127.0.0.1:{free_port()}/routines"
    line = Service(tmp_path, DATABASE_URL=url).refusal()
    assert "The database cannot be reached" in line
    assert "hidden-password" not in line


def test_a_missing_database_is_reported_in_one_line(tmp_path: Path, server_url: str) -> None:
    assert (
        'database "no_such_database" does not exist. Create it, or correct the name in DATABASE_URL.'
        in Service(tmp_path, DATABASE_URL=with_database(server_url, "no_such_database")).refusal()
    )


def test_a_database_with_another_encoding_is_reported_in_one_line(tmp_path: Path, server_url: str) -> None:
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute("CREATE DATABASE in_ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'")
        try:
            line = Service(tmp_path, DATABASE_URL=with_database(server_url, "in_ascii")).refusal()
        finally:
            admin.execute("DROP DATABASE in_ascii WITH (FORCE)")
    assert "SQL_ASCII; Routines needs UTF8" in line


def test_an_unwritable_data_directory_is_reported_in_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        # Nothing is read-only for root, so root runs this test as an ordinary user.
        line = Service(tmp_path, prefix=ordinary_user() if os.geteuid() == 0 else ()).refusal()
    finally:
        tmp_path.chmod(0o700)
    assert "Cannot write to the data directory" in line
    assert "set ROUTINES_DATA_DIR" in line


def test_an_unwritable_file_in_the_data_directory_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / ".routines" / "up.lock").mkdir(parents=True)
    assert "Cannot write to the data directory" in Service(tmp_path).refusal()


def test_an_invalid_setting_is_reported_in_one_line(tmp_path: Path) -> None:
    assert "ROUTINES_PORT" in Service(tmp_path, ROUTINES_PORT="http").refusal()
