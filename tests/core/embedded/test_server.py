"""The embedded server is created, attached to, stopped, killed and started again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from routines_core.embedded import EmbeddedServer, running_url
from routines_core.embedded.binaries import find_binaries
from routines_core.errors import EmbeddedServerError


def wait_until(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not hold in time"
        time.sleep(0.02)


def postmaster(data_dir: Path) -> int:
    return int((data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0])


def test_it_keeps_its_data_over_a_restart(tmp_path: Path) -> None:
    for expected in (None, "kept"):
        server = EmbeddedServer(tmp_path)
        assert server.start() == "started"
        assert EmbeddedServer(tmp_path).start() == "attached"
        with psycopg.connect(server.url()) as connection:
            row = connection.execute("SELECT to_regclass('kept')::text").fetchone()
            assert row == (expected,)
            connection.execute("CREATE TABLE IF NOT EXISTS kept ()")
        assert running_url(tmp_path) == server.url()
        server.stop()
        assert running_url(tmp_path) is None


def test_it_starts_again_after_its_postmaster_was_killed(tmp_path: Path) -> None:
    first = EmbeddedServer(tmp_path)
    first.start()
    os.kill(postmaster(tmp_path), signal.SIGKILL)
    wait_until(lambda: running_url(tmp_path) is None)
    second = EmbeddedServer(tmp_path)
    assert second.start() == "started"
    second.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux notifies a process of its parent's death")
def test_it_stops_when_the_process_that_started_it_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from routines_core.embedded import EmbeddedServer\n"
        f"EmbeddedServer(Path({str(tmp_path)!r})).start(); print('up', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as starter:
        assert starter.stdout
        assert starter.stdout.readline() == b"up\n"
        assert running_url(tmp_path)
        starter.kill()
    wait_until(lambda: running_url(tmp_path) is None)


def test_a_path_too_long_for_a_socket_gets_a_directory_of_its_own(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / ("long" * 30))
    server.start()
    with psycopg.connect(server.url()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    server.stop()


def test_a_cluster_of_another_major_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("9\n")
    with pytest.raises(EmbeddedServerError, match="was created by Postgres 9"):
        EmbeddedServer(tmp_path).start()


def test_a_data_directory_that_cannot_be_created_is_reported_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedServerError, match="set ROUTINES_DATA_DIR"):
        EmbeddedServer(tmp_path / "file" / "data").start()


def test_the_environment_variable_for_the_binaries_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for program in ("postgres", "initdb"):
        (tmp_path / program).touch()
    monkeypatch.setenv("ROUTINES_POSTGRES_BIN", str(tmp_path))
    assert find_binaries() == tmp_path
