"""A real PgBouncer in front of a test's server, from Debian's package `pgbouncer`; tests are skipped without it."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from support.account import ordinary_user
from support.rows import Database
from support.serving import free_port

START_SECONDS, ANSWER_SECONDS = 30.0, 5.0
ASK_FOR_TLS = bytes([0, 0, 0, 8, 4, 210, 22, 47])
"""The request that a client sends before any other; a server answers it with one byte, before it asks who it is."""
BINARY = shutil.which("pgbouncer", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")
needs_pgbouncer = pytest.mark.skipif(BINARY is None, reason="no pgbouncer on the PATH (Debian: apt install pgbouncer)")


@contextmanager
def pgbouncer(directory: Path, database: Database, pool_mode: str, **settings: object) -> Generator[Database]:
    """Run a PgBouncer with all defaults but `settings`. Yields the database behind it, for the same login."""
    pooler = PgBouncer(directory, database, pool_mode, **settings)
    try:
        pooler.start()
        yield pooler.database
    finally:
        pooler.stop()


class PgBouncer:
    """A PgBouncer on a port of its own.

    Attributes:
        database: The database behind it, for the same login.
    """

    def __init__(self, directory: Path, database: Database, pool_mode: str, **settings: object) -> None:
        self.port = free_port()
        target = conninfo_to_dict(database.url)
        user = f"{target['user']}@" if "user" in target else ""
        self.database = Database(f"postgresql://{user}127.0.0.1:{self.port}/{target['dbname']}")
        self._path = directory / "pgbouncer.ini"
        self._path.write_text(_configuration(target, self.port, {"pool_mode": pool_mode, **settings}))
        self._log = directory / "pgbouncer.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        """Return whether its process has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        assert BINARY
        account = ordinary_user() if os.geteuid() == 0 else ()  # it refuses to run as root
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*account, BINARY, str(self._path)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        _await_answer(self._process, self.port)

    def answers(self) -> bool:
        """Return whether it answers a new connection within five seconds."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=ANSWER_SECONDS) as client:
                client.settimeout(ANSWER_SECONDS)
                client.sendall(ASK_FOR_TLS)
                return bool(client.recv(1))
        except OSError:
            return False

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Stop it. PgBouncer 1.18 may loop for ever once clients were killed, and then does not hear SIGTERM."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()


def _configuration(target: dict[str, object], port: int, settings: dict[str, object]) -> str:
    server = " ".join(f"{key}={target[key]}" for key in ("host", "port", "user", "password") if target.get(key))
    lines = [f"{name} = {setting}" for name, setting in settings.items()]
    return "\n".join(
        ["[databases]", f"* = {server}", "[pgbouncer]", "listen_addr = 127.0.0.1", f"listen_port = {port}",
         "unix_socket_dir =", "auth_type = any", *lines, ""]
    )  # fmt: skip


def _await_answer(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert process.poll() is None, "pgbouncer does not start"
            assert time.monotonic() < end, "pgbouncer does not start"
            time.sleep(0.02)
        else:
            return


def asked(url: str, query: str) -> object:
    """Return the single value of a query in a session that nobody has set up."""
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
        row = connection.execute(query.encode()).fetchone()
        assert row
        return row[0]
