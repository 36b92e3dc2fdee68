"""Alpha, the attacker: one key, a client that takes any answer, hostile receivers, and a time after which it stops."""

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
"""How long alpha waits for an answer while it prepares."""
PARTING_SECONDS = 1.0
"""How long after the end of the attack it waits for the last answers; then it hangs up."""
Step = dict[str, Any]


class UselessAttackError(AssertionError):
    """An attack did not get as far as it must to be one."""


@dataclass
class Alpha:
    """What an attack works with.

    Attributes:
        seconds: How long the attack goes on once it has been prepared.
        answers: How often each status came; 0: no answer.
        begun_at: When the attack proper began; what came before was preparation.
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
        """Say that the attack is prepared: from now on it takes `seconds`."""
        self.begun_at = time.monotonic()

    def goes_on(self) -> bool:
        """Whether the attack's time is not over."""
        if not self.begun_at:
            self.begin()
        return time.monotonic() < self.begun_at + self.seconds

    def hold(self) -> None:
        """Do nothing more until the time is over."""
        while self.goes_on():
            time.sleep(0.05)

    def repeat(self, act: Callable[[], object], *, threads: int = 1) -> None:
        """Do this again and again in so many threads until the time is over."""
        if not self.begun_at:
            self.begin()

        def work(_: int) -> None:
            while self.goes_on():
                act()

        self.at_once(work, range(threads))

    def at_once(self, act: Callable[[Any], object], items: Iterable[Any], *, threads: int = 64) -> None:
        """Do this for each item, many at a time; raises what the first one raises."""
        given = list(items)
        with ThreadPoolExecutor(max(1, min(threads, len(given)))) as pool:
            for future in [pool.submit(act, item) for item in given]:
                future.result()

    # Requests

    def send(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response | None:
        """Send a request; any answer is fine, and so is none. A body that is bytes is sent as it is."""
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
        """Save a task whose steps run in this order; its name.

        Raises:
            UselessAttackError: It was refused.
        """
        workflow = {"init_params": init_params or {}, "step_configs": steps, "steps": list(steps)}
        answer = self.send("POST", f"/tasks/{self.collection}", {"name": name, "workflow": workflow})
        if answer is None or answer.status_code != httpx.codes.CREATED:
            raise UselessAttackError(f"task {name} was refused: {answer.text[:500] if answer else 'no answer'}")
        return name

    def run(self, task: str = "attack", **body: Any) -> int | None:
        """Start a run; its id, or None if it was refused."""
        answer = self.send("POST", f"/run/{self.collection}/{task}", body)
        return answer.json()["trajectory_id"] if answer is not None and answer.is_success else None

    def runs(self, count: int, task: str = "attack", **body: Any) -> list[int]:
        """Start so many runs, sixteen at a time, as long as the attack goes on.

        Raises:
            UselessAttackError: Not one was started.
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
        """Start a run and wait for its end; part of the preparation.

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
        """Set these environment variables, as many in a request as one may have.

        Raises:
            UselessAttackError: Not one was taken.
        """
        names = list(variables)
        size = max(1, min(100, 200_000 // max(1, *map(len, variables.values()))))
        taken = False
        for start in range(0, len(names), size):
            part = {name: variables[name] for name in names[start : start + size]}
            answer = self.send("PATCH", f"/collections/{self.collection}/environment", {"environment_variables": part})
            taken |= answer is not None and answer.is_success
        if not taken:
            raise UselessAttackError(f"no environment variable was taken: {dict(self.answers)}")

    # Bare connections

    def connect(self) -> socket.socket | None:
        """A connection that stays open until the attack is over; None if it was refused."""
        parts = urlsplit(self.api_url)
        with contextlib.suppress(OSError):
            opened = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=5)
            self._sockets.append(opened)
            return opened
        self.answers[0] += 1
        return None

    def head(self, method: str, path: str, *, key: bool = True, **headers: object) -> bytes:
        """The head of a request; _ in a header's name stands for -."""
        lines = [f"{method} /api/v1{path} HTTP/1.1", "Host: alpha"]
        lines += [f"Authorization: Bearer {self.key}"] if key else []
        lines += [f"{name.replace('_', '-')}: {text}" for name, text in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")

    def push(self, connection: socket.socket | None, content: bytes) -> bool:
        """Send bytes as they are; whether the other side took them."""
        if connection is None:
            return False
        with contextlib.suppress(OSError):
            connection.sendall(content)
            return True
        return False

    # What only the machine around alpha does

    def execute(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Do what time or chance would do: make routines due, take a lease away."""
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
        """Let the slot of all of alpha's routines come; how many they are."""
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
    """A receiver on loopback that behaves in this way to every connection; its URL."""
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
            """Silent."""

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        stopped.set()
        server.shutdown()
        server.server_close()


def answering(body: bytes, *, status: int = 200, **headers: object) -> Behaviour:
    """Answers with this; _ in a header's name stands for -."""
    head = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", "Connection: close"]
    head += [f"{name.replace('_', '-')}: {text}" for name, text in headers.items()]
    content = "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body

    def behave(connection: socket.socket) -> None:
        connection.sendall(content)

    return behave


def hangs(connection: socket.socket) -> None:
    """Never says a word, until the other side hangs up."""
    connection.settimeout(120)
    while connection.recv(65536):
        pass


def trickling(head: bytes, piece: bytes, pause_seconds: float, seconds: float = 60) -> Behaviour:
    """Says `head`, then `piece` again and again with pauses."""

    def behave(connection: socket.socket) -> None:
        connection.sendall(head)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            connection.sendall(piece)
            time.sleep(pause_seconds)

    return behave


def dumps(value: Any) -> bytes:
    """JSON in bytes, made once for a request that is sent often."""
    return json.dumps(value).encode()
