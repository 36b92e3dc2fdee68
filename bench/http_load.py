"""Put load on HTTP servers with wrk, and start the servers."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

SCRIPT = Path(__file__).with_name("request.lua")
START_SECONDS = 60.0


class Load(NamedTuple):
    """What to send. request.lua explains what {n} and {i} become."""

    name: str
    method: str
    path: str
    body: str | None = None


class Measured(NamedTuple):
    """The result of one round."""

    per_second: float
    p50_ms: float
    p99_ms: float


def require_wrk() -> None:
    """Exit with a message if wrk is not installed."""
    if shutil.which("wrk") is None:
        sys.exit("Skipped: this benchmark needs the load generator wrk, which is not installed (apt-get install wrk).")


def measure(load: Load, url: str, key: str, *, run: int, seconds: int, connections: int) -> Measured:
    """Run wrk for one round; exits if any request was not answered with 2xx."""
    variables = {"BENCH_METHOD": load.method, "BENCH_PATH": load.path, "BENCH_KEY": key, "BENCH_RUN": f"{run}-"}
    if load.body:
        variables["BENCH_BODY"] = load.body
    command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"]
    ran = subprocess.run(
        [*command, "--script", str(SCRIPT), url],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(ran.stdout.splitlines()[-1])
    if found.pop("failed"):
        sys.exit(f"{load.name}: requests failed\n{ran.stdout}")
    return Measured(**found)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def server(command: Sequence[str], port: int, environment: Mapping[str, str]) -> Generator[str]:
    """Start a server with this command and yield its URL once it answers."""
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{' '.join(command)} did not start")
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait()


def _answers(url: str) -> bool:
    try:
        httpx.get(url, timeout=2)
    except httpx.TransportError:
        return False
    return True
