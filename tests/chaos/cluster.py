"""Run the Postgres under test: our own embedded server, durable, which can be crashed on demand."""

import os
import signal
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from chaos.wrong_clock import wrong_clock
from routines_core.embedded import EmbeddedServer

SETTINGS = {"fsync": "on", "synchronous_commit": "on", "max_connections": "100", "log_min_messages": "fatal"}


class Cluster:
    """One server in one directory, with fsync on: whatever it acknowledges must survive.

    Attributes:
        clock_seconds: How far its clock is ahead of the machine's; 0 if it cannot be moved here.
    """

    def __init__(self, directory: Path, *, clock_seconds: int = 0) -> None:
        environment = wrong_clock(clock_seconds)
        self.clock_seconds = clock_seconds if environment else 0
        self._server = EmbeddedServer(directory, settings=SETTINGS, environment=environment)
        self.url = self.admin_url = ""

    def start(self) -> None:
        """Start the server, which stops with the thread that starts it: call this from the main thread."""
        self._server.start()
        self.url = self._server.url()
        self.admin_url = self._server.url("postgres")

    @property
    def socket(self) -> Path:
        """Return the Unix socket that the server listens on."""
        return Path(parse_qs(urlsplit(self.url).query)["host"][0]) / ".s.PGSQL.5432"

    def postmaster(self) -> int:
        """Return the process id of the postmaster."""
        return int((self._server._cluster / "postmaster.pid").read_text("utf-8").splitlines()[0])

    def crash(self) -> None:
        """Do `pg_ctl stop -m immediate`: every backend quits at once, and nothing is flushed."""
        os.kill(self.postmaster(), signal.SIGQUIT)
        assert self._server._process
        self._server._process.wait(timeout=30)

    def stop(self) -> None:
        """Shut the server down gracefully."""
        self._server.stop()
