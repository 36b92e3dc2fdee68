"""Alpha, the attacker: it has one key, a client that accepts any response, hostile receivers and a time limit."""

import contextlib
import json
import socket
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg

ANSWER_SECONDS = 20.0
"""Response timeout while alpha prepares an attack."""
PARTING_SECONDS = 1.0
"""Once the attack is over, alpha waits this long for the last responses and then disconnects."""
Step = dict[str, Any]


class UselessAttackError(AssertionError):
    """The attack could not be set up, so it proves nothing."""


@dataclass
class Alpha:
    """What an attack can use.

    Attributes:
        seconds: Duration of the attack, preparation not included.
        answers: Number of responses by status; 0 stands for no response.
        begun_at: When the attack proper began, after its preparation; 0 until then.
    """

    api_url: str
    key: str
    collection: str
    database_url: str
    seconds: float
    answers: Counter[int] = field(default_factory=Counter[int])
    begun_at: float = 0.0
    _client: httpx.Client = field(init=False)
    _sockets: list[socket.socket] = field(default_factory=list[socket.socket])

    def __post_init__(self) -> None:
        self._client = httpx.Client(
            base_url=f"{self.api_url}/api/v1",
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=ANSWER_SECONDS,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=100),
        )

    def close(self) -> None:
        """Close every connection."""
        self._client.close()
        for each in self._sockets:
            each.close()

    # Time

    def begin(self) -> None:
        """Mark the end of the preparation; the attack lasts `seconds` from now."""
        self.begun_at = time.monotonic()

    def goes_on(self) -> bool:
        """Return True while the attack has time left; the first call begins it."""
        if not self.begun_at:
            self.begin()
        return time.monotonic() < self.begun_at + self.seconds

    def hold(self) -> None:
        """Wait until the time is up."""
        while self.goes_on():
            time.sleep(0.05)

    def repeat(self, act: Callable[[], object], *, threads: int = 1) -> None:
        """Repeat `act` in this many threads until the time is up."""
        if not self.begun_at:
            self.begin()

        def work(_: int) -> None:
            while self.goes_on():
                act()

        self.at_once(work, range(threads))

    def at_once(self, act: Callable[[Any], object], items: Iterable[Any], *, threads: int = 64) -> None:
        """Call `act` for each item, many at a time; raises the first exception."""
        given = list(items)
        with ThreadPoolExecutor(max(1, min(threads, len(given)))) as pool:
            for future in [pool.submit(act, item) for item in given]:
                future.result()

    # Requests

    def send(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response | None:
        """Send a request and return the response, or None if there was none. A body of bytes is sent unchanged."""
        if isinstance(body, bytes):
            options["content"] = body
            options.setdefault("headers", {"Content-Type": "application/json"})
        elif body is not None:
            options["json"] = body
        if self.begun_at:
            left = self.begun_at + self.seconds - time.monotonic()
            options.setdefault("timeout", max(0.0, left) + PARTING_SECONDS)
        try:
            answer = self._client.request(method, path, **options)
        except httpx.HTTPError:
            self.answers[0] += 1
            return None
        self.answers[answer.status_code] += 1
        return answer

    def task(self, steps: dict[str, Step], init_params: dict[str, Any] | None = None, name: str = "attack") -> str:
        """Save a task whose steps run in this order. Returns its name.

        Raises:
            UselessAttackError: The API refused it.
        """
        workflow = {"init_params": init_params or {}, "step_configs": steps, "steps": list(steps)}
        answer = self.send("POST", f"/tasks/{self.collection}", {"name": name, "workflow": workflow})
        if answer is None or answer.status_code != httpx.codes.CREATED:
            raise UselessAttackError(f"task {name} was refused: {answer.text[:500] if answer else 'no answer'}")
        return name

    def run(self, task: str = "attack", **body: Any) -> int | None:
        """Start a run. Returns its id, or None if the API refused it."""
        answer = self.send("POST", f"/run/{self.collection}/{task}", body)
        return answer.json()["trajectory_id"] if answer is not None and answer.is_success else None

    def runs(self, count: int, task: str = "attack", **body: Any) -> list[int]:
        """Start up to `count` runs, sixteen at a time, while the attack lasts.

        Raises:
            UselessAttackError: No run was started.
        """
        found: list[int | None] = []
        self.goes_on()
        self.at_once(
            lambda _: found.append(self.run(task, **body) if self.goes_on() else None), range(count), threads=16
        )
        started = [run for run in found if run is not None]
        if not started:
            raise UselessAttackError(f"no run of {task} was started: {dict(self.answers)}")
        return started

    def ended_run(self, task: str, *, seconds: float = 30, **body: Any) -> int:
        """Start a run and wait until it ends. Part of the preparation.

        Raises:
            UselessAttackError: It did not end.
        """
        run = self.run(task, **body)
        until = time.monotonic() + seconds
        while run is not None and time.monotonic() < until:
            [(is_ended,)] = self.execute("SELECT ended_at IS NOT NULL FROM routines.trajectories WHERE id = %s", run)
            if is_ended:
                return run
            time.sleep(0.1)
        raise UselessAttackError(f"the run of {task} did not end: {dict(self.answers)}")

    def environment(self, variables: dict[str, str]) -> None:
        """Set these environment variables, as many per request as the API allows.

        Raises:
            UselessAttackError: The API accepted none of them.
        """
        names = list(variables)
        size = max(1, min(100, 200_000 // max(1, *map(len, variables.values()))))
        taken = False
        for start in range(0, len(names), size):
            part = {name: variables[name] for name in names[start : start + size]}
            answer = self.send("PATCH", f"/collections/{self.collection}/environment", {"environment_variables": part})
            taken |= answer is not None and answer.is_success
        if not taken:
            raise UselessAttackError(f"no environment variable was accepted: {dict(self.answers)}")

    # Bare connections

    def connect(self) -> socket.socket | None:
        """Open a connection that stays open until the attack is over. Returns None if it was refused."""
        parts = urlsplit(self.api_url)
        with contextlib.suppress(OSError):
            opened = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=5)
            self._sockets.append(opened)
            return opened
        self.answers[0] += 1
        return None

    def head(self, method: str, path: str, *, key: bool = True, **headers: object) -> bytes:
        """Return the head of a request; _ in a header's name stands for -."""
        lines = [f"{method} /api/v1{path} HTTP/1.1", "Host: alpha"]
        lines += [f"Authorization: Bearer {self.key}"] if key else []
        lines += [f"{name.replace('_', '-')}: {text}" for name, text in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")

    def push(self, connection: socket.socket | None, content: bytes) -> bool:
        """Send raw bytes. Returns True if the other side accepted them."""
        if connection is None:
            return False
        with contextlib.suppress(OSError):
            connection.sendall(content)
            return True
        return False

    # Events that alpha cannot cause over HTTP

    def execute(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Do by SQL what time or chance would do, such as making routines due or expiring a lease."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def lose_leases(self) -> None:
        """Let the leases of alpha's runs expire, as if their worker had been lost."""
        self.execute(
            """UPDATE routines.trajectories SET lease_expires_at = now() - interval '1 second'
               WHERE status = 'running'
                 AND collection_id = (SELECT id FROM routines.collections WHERE name = %s)""",
            self.collection,
        )

    def make_due(self) -> int:
        """Make all of alpha's routines due at the next second. Returns their number."""
        return len(
            self.execute(
                """UPDATE routines.routines SET next_run_at = date_trunc('second', now()) + interval '1 second'
                   WHERE collection_id = (SELECT id FROM routines.collections WHERE name = %s) RETURNING id""",
                self.collection,
            )
        )


Behaviour = Callable[[socket.socket], None]
"""What a hostile receiver does with a connection whose request it has begun to read."""


@contextmanager
def receiver(behaviour: Behaviour) -> Generator[str]:
    """Run a receiver on loopback that treats every connection this way. Yields its URL."""
    stopped = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                self.request.recv(65536)
                behaviour(self.request)

    class Server(socketserver.ThreadingTCPServer):
        request_queue_size = 1024
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Ignore errors."""

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        stopped.set()
        server.shutdown()
        server.server_close()


def answering(body: bytes, *, status: int = 200, **headers: object) -> Behaviour:
    """Return a behaviour that sends this response; _ in a header's name stands for -."""
    head = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", "Connection: close"]
    head += [f"{name.replace('_', '-')}: {text}" for name, text in headers.items()]
    content = "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body

    def behave(connection: socket.socket) -> None:
        connection.sendall(content)

    return behave


def hangs(connection: socket.socket) -> None:
    """Send nothing until the other side disconnects."""
    connection.settimeout(120)
    while connection.recv(65536):
        pass


def trickling(head: bytes, piece: bytes, pause_seconds: float, seconds: float = 60) -> Behaviour:
    """Return a behaviour that sends `head`, then `piece` over and over with pauses in between."""

    def behave(connection: socket.socket) -> None:
        connection.sendall(head)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            connection.sendall(piece)
            time.sleep(pause_seconds)

    return behave


def dumps(value: Any) -> bytes:
    """Encode JSON once, for a request that is sent often."""
    return json.dumps(value).encode()
