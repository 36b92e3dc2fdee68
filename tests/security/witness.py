"""Record everything a running service shows: answers, processes, sessions, logs, a dump, and the webhooks it sends."""

import subprocess
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psycopg

from routines_core.embedded.binaries import _from_package, find_binaries
from support.service import ROUTINES, Service, descendants


class Witness:
    """Everything that was seen, by the place where it was seen."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.seen: dict[str, bytearray] = {}
        self.samples = 0
        self.sessions: set[str] = set()

    def run(self, *command: str) -> None:
        """Run a command of Routines and record its output."""
        done = subprocess.run(
            [*ROUTINES, *command],
            cwd=self.service.directory,
            env=self.service.environment,
            capture_output=True,
            check=True,
        )
        self.note("commands", done.stdout + done.stderr)

    def note(self, place: str, found: bytes) -> None:
        self.seen.setdefault(place, bytearray()).extend(found + b"\n")

    def client(self, key: str) -> httpx.Client:
        """Return a client of the API with this key that records every answer in full."""
        headers = {"Authorization": f"Bearer {key}"}
        hooks = {"response": [self._note_answer]}
        return httpx.Client(base_url=f"{self.service.url}/api/v1", headers=headers, event_hooks=hooks, timeout=30)

    def _note_answer(self, answer: httpx.Response) -> None:
        head = "\n".join(f"{name}: {text}" for name, text in answer.headers.multi_items())
        self.note("answers", f"{answer.status_code}\n{head}\n".encode() + answer.read())

    @contextmanager
    def sampling(self) -> Generator[None]:
        """Observe sessions and processes repeatedly until the end of the block."""
        stop = threading.Event()
        thread = threading.Thread(target=self._sample, args=[stop])
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _sample(self, stop: threading.Event) -> None:
        with psycopg.connect(self.service.database_url(), autocommit=True) as connection:
            while not stop.wait(0.05):
                # Without timestamps, so that repeated rows are recognised and not recorded again.
                rows = connection.execute("SELECT application_name, query FROM pg_stat_activity").fetchall()
                self.sessions.update(f"{name} {query}" for name, query in rows)
                if self.samples % 10 == 0:
                    self._look_at_processes()
                self.samples += 1

    def _look_at_processes(self) -> None:
        for pid in descendants(self.service.process.pid):
            for file in ("cmdline", "environ"):
                try:
                    found = Path(f"/proc/{pid}/{file}").read_bytes()
                except OSError:  # the process has ended, or runs as another user
                    continue
                if found not in self.seen.get(file, b""):
                    self.note(file, found)

    def record_logs_and_dump(self) -> None:
        """Record the sessions' statements, the logs of the processes and the server, and a dump of the database."""
        self.note("sessions", "\n".join(self.sessions).encode())
        self.note("logs", (self.service.directory / "up.log").read_bytes())
        self.note("server's log", (self.service.data_dir / "postgres.log").read_bytes())
        dump = [pg_dump(), self.service.database_url()]
        self.note("dump", subprocess.run(dump, capture_output=True, check=True).stdout)


def pg_dump() -> Path:
    """Return the server's pg_dump, or one of the embedded package, since some packages of servers have none."""
    return next(found for directory in (find_binaries(), *_from_package()) if (found := directory / "pg_dump").exists())


@contextmanager
def receiver(witness: Witness) -> Generator[str]:
    """Yield the URL of a receiver: it records what arrives at /hook and sends back what arrives at /echo."""

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            is_echo = self.path.startswith("/echo")
            if not is_echo:
                witness.note("webhooks", str(self.headers).encode() + body)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body) if is_echo else 0))
            self.send_header("Content-Type", "application/json")
            self.send_header("X-Path", self.path)
            self.end_headers()
            self.wfile.write(body if is_echo else b"")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name comes from the base class
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
