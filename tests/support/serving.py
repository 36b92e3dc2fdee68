"""The real server for tests: `routines api` as a process on loopback, with a real database."""

import asyncio
import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx
import psycopg

from routines_core.db import connect
from routines_core.lifecycle import LIFELINE_VARIABLE
from support.rows import ENCRYPTION_KEYS, Database, make_key, with_database

START_SECONDS = 60.0
"""How long a process may take to start on a busy machine."""
TASK = {"init_params": {"text": "hello", "size": 1}, "steps": [], "step_configs": {}}


def free_port() -> int:
    """Return a free port on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition: Callable[[], object], seconds: float = START_SECONDS) -> None:
    """Wait until the condition holds; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not hold in time"
        time.sleep(0.02)


class ApiProcess:
    """One `routines api` process. It ends with the test process, which holds its lifeline."""

    def __init__(self, database_url: str, *, enable_routines: bool = True, **settings: object) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        lifeline, self._held = os.pipe()
        plain = {key: text for key, text in os.environ.items() if not key.startswith("ROUTINES_")}
        defaults = {"RATE_PER_SECOND": 1e6, "RATE_BURST": 10**6, "ENCRYPTION_KEYS": ENCRYPTION_KEYS, "PORT": self.port}
        given = {f"ROUTINES_{name.upper()}": str(text) for name, text in {**defaults, **settings}.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "routines_cli.main", "api"],
            env={
                **plain,
                "ENABLE_ROUTINES": str(enable_routines),
                "DATABASE_URL": database_url,
                LIFELINE_VARIABLE: str(lifeline),
                **given,
            },
            pass_fds=[lifeline],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(lifeline)

    def is_healthy(self) -> bool:
        """Return whether the health endpoint answers within two seconds."""
        # Not by httpx, which would load all certificates each time.
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/api/v1/health")
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def client(self, key: str = "") -> httpx.Client:
        """Return a client that sends this key."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, verify=False)

    def socket(self) -> socket.socket:
        """Open a raw connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def stop(self) -> int:
        """Stop the process with SIGTERM and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=30)
        finally:
            self.process.kill()
            os.close(self._held)


@contextmanager
def api_process(database_url: str, **settings: Any) -> Generator[ApiProcess]:
    """Start a process, wait until it answers, and stop it at the end of the block."""
    api = ApiProcess(database_url, **settings)
    try:
        wait_until(api.is_healthy)
        yield api
    finally:
        api.stop()


@contextmanager
def copy_of(server_url: str, template: str) -> Generator[Database]:
    """Create a migrated, empty database for the duration of the block."""
    name = f"routines_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy'.encode())
        yield Database(with_database(server_url, name))
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@dataclass(frozen=True)
class Answer:
    """An answer on a raw connection; the status is 0 if the server closed it without answering."""

    status: int
    headers: dict[str, str]
    content: bytes


def send(api: ApiProcess, message: bytes) -> Answer:
    """Send these bytes unchanged and read one answer."""
    method = message.partition(b" ")[0].decode("latin-1")
    with api.socket() as bare:
        # The server may answer and close before it has read everything.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            bare.sendall(message)
        try:
            answer = http.client.HTTPResponse(bare, method=method)
            answer.begin()
            headers = {name.lower(): text for name, text in answer.getheaders()}
            return Answer(answer.status, headers, answer.read())
        except (http.client.BadStatusLine, ConnectionResetError):
            return Answer(0, {}, b"")


def contents(database: Database) -> dict[str, str]:
    """Return a digest of each table, except those in which every request may record its key's use."""
    recorded = {"rate_buckets", "api_keys"}
    with psycopg.connect(database.url) as connection:
        rows = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'routines'::regnamespace AND relkind = 'r'"
        ).fetchall()
        return {name: _digest(connection, name) for (name,) in rows if name not in recorded}


def _digest(connection: psycopg.Connection[Any], table: str) -> str:
    query = f"SELECT md5(coalesce(string_agg(t::text, ',' ORDER BY t::text), '')) FROM routines.{table} AS t"
    row = connection.execute(query.encode()).fetchone()
    assert row
    return row[0]


def new_key(database: Database, collection: str, expires_in_seconds: float | None = None) -> str:
    """Create a key for this collection."""

    async def create() -> str:
        async with connect(database.url, "tests") as connection:
            return await make_key(connection, collection, expires_in_seconds=expires_in_seconds)

    return asyncio.run(create())
