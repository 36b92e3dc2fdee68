"""`routines up` as a user runs it: real processes, a real server, real signals."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path

import httpx
import psycopg
import pytest

from routines_core.embedded import running_url

pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-m", "routines_cli.main", "up"]


def wait_until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Service:
    """One `routines up` in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.data_dir = directory / "data"
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        plain = {key: text for key, text in os.environ.items() if not key.startswith("ROUTINES_")}
        plain.pop("DATABASE_URL", None)
        self.environment = {**plain, "ROUTINES_DATA_DIR": str(self.data_dir), "ROUTINES_PORT": str(port)}

    def start(self) -> None:
        self.process = subprocess.Popen(
            COMMAND, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout
        assert self.process.stdout.readline() == f"ready {self.url}\n"

    def parts(self) -> list[int]:
        """The process ids of the parts."""
        found = subprocess.run(
            ["pgrep", "-P", str(self.process.pid), "-f", "routines_cli.main"],
            capture_output=True,
            text=True,
            check=False,
        )
        return [int(pid) for pid in found.stdout.split()]

    def part(self, name: str) -> int:
        [pid] = [
            pid for pid in self.parts() if Path(f"/proc/{pid}/cmdline").read_bytes().endswith(f"{name}\0".encode())
        ]
        return pid

    def make_due(self) -> None:
        url = running_url(self.data_dir)
        assert url
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE routines.routines SET next_run_at = date_trunc('minute', now())")

    def completed(self) -> int:
        url = running_url(self.data_dir)
        if url is None:
            return 0
        with psycopg.connect(url) as connection:
            row = connection.execute(
                "SELECT count(*) FROM routines.trajectories WHERE status = 'completed' AND trigger = 'schedule'"
            ).fetchone()
        return row[0] if row else 0


@pytest.fixture
def service(tmp_path: Path) -> Generator[Service]:
    service = Service(tmp_path)
    service.start()
    yield service
    service.process.terminate()
    assert service.process.wait(timeout=10) == 0
    assert running_url(service.data_dir) is None


def test_the_demo_routine_can_be_run_and_its_trajectory_read(service: Service) -> None:
    key = (service.data_dir / "demo.key").read_text().strip()
    with httpx.Client(base_url=f"{service.url}/api/v1", headers={"Authorization": f"Bearer {key}"}) as client:
        run = client.post("/routines/demo/hello/every-hour/run-now").json()["trajectory_id"]
        path = f"/db/trajectory/demo/hello/{run}"
        wait_until(lambda: client.get(path).json()["status"] == "completed")
        assert client.get(path).json()["steps"]["greet"]["outputs"] == {"text": "Good morning, world!"}


def test_a_ticker_and_a_worker_that_are_killed_come_back_and_what_is_due_is_run(service: Service) -> None:
    before = service.part("ticker"), service.part("worker")
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    service.make_due()
    wait_until(lambda: service.completed() == 1)


def test_after_a_kill_of_the_whole_service_the_next_start_runs_what_is_due_once(service: Service) -> None:
    service.process.kill()
    service.process.wait()
    wait_until(lambda: running_url(service.data_dir) is None)
    service.start()
    service.make_due()
    wait_until(lambda: service.completed() == 1)


def test_a_second_up_in_the_same_data_directory_is_one_clear_line(service: Service) -> None:
    other = {**service.environment, "ROUTINES_PORT": str(free_port())}
    second = subprocess.run(COMMAND, env=other, capture_output=True, text=True, timeout=20, check=False)
    assert second.returncode == 1
    assert "Another `routines up` runs in" in second.stderr
    assert len(second.stderr.splitlines()) == 1


def test_a_taken_port_is_one_clear_line(service: Service, tmp_path: Path) -> None:
    other = {**service.environment, "ROUTINES_DATA_DIR": str(tmp_path / "other")}
    second = subprocess.run(COMMAND, env=other, capture_output=True, text=True, timeout=20, check=False)
    assert second.returncode == 1
    assert "set ROUTINES_PORT to a free port" in second.stderr
    assert len(second.stderr.splitlines()) == 1
