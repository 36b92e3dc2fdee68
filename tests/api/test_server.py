"""The real server with slow clients, many clients, and open requests when it stops."""

import json
import signal
import socket
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack

import psycopg
import pytest

from api.hostile.message import KEPT, KEY, ROUTINES, TASKS, request
from routines_api.app import CONNECTIONS
from support.rows import Database
from support.serving import TASK, ApiProcess, api_process, send, wait_until

pytestmark = pytest.mark.slow

LONGEST = 20.0
"""How long a disconnect may take on a busy machine, with 1 s configured."""


@pytest.fixture(scope="module")
def impatient(shared: Database, key: str) -> Generator[ApiProcess]:
    """A process that waits one second for headers and for a body, and the routine `kept`."""
    with api_process(shared.url, header_timeout_seconds=1, body_timeout_seconds=1) as process:
        with process.client(key) as client:
            assert client.post(TASKS, json={"name": "echo", "workflow": TASK}).status_code == 201
            assert client.post(ROUTINES, json={"name": "kept", "cadence": {"type": "manual"}}).status_code == 201
        yield process


def begun(api: ApiProcess, key: str) -> socket.socket:
    """Open a connection and send a request without most of its body."""
    bare = api.socket()
    head = request("PATCH", KEPT, headers={"Content-Type": "application/json", "Content-Length": "1000"})
    bare.sendall(head.replace(KEY, key.encode()) + b'{"paused"')
    return bare


def drip(bare: socket.socket, text: bytes, seconds: float) -> bytes:
    """Send a few bytes from time to time, and return the answer."""
    bare.settimeout(0.2)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            bare.sendall(text)
            return bare.recv(65536)
        except TimeoutError:
            continue
        except (BrokenPipeError, ConnectionResetError):
            return b""
    pytest.fail("the connection was not closed")


@pytest.mark.parametrize(
    "sent", [b"GET /api/v1/health HTTP/1.1\r\nHost: loc", b"G", b""], ids=["host", "method", "nothing"]
)
def test_a_client_that_stalls_in_the_headers_is_disconnected_while_health_answers(
    impatient: ApiProcess, sent: bytes
) -> None:
    with impatient.socket() as bare:
        bare.sendall(sent)
        assert impatient.is_healthy()
        bare.settimeout(LONGEST)
        assert bare.recv(65536)[:13] in {b"", b"HTTP/1.1 408 "}
        assert impatient.is_healthy()


def test_a_client_that_drips_its_headers_is_disconnected(impatient: ApiProcess) -> None:
    with impatient.socket() as bare:
        bare.sendall(b"GET /api/v1/health HTTP/1.1\r\nX-Drip: ")
        assert drip(bare, b"a", LONGEST)[:13] in {b"", b"HTTP/1.1 408 "}


def test_a_client_that_stalls_in_the_body_is_answered_408_while_health_answers(impatient: ApiProcess, key: str) -> None:
    with begun(impatient, key) as bare:
        assert impatient.is_healthy()
        bare.settimeout(LONGEST)
        head, _, body = bare.recv(65536).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        body = body or bare.recv(65536)
        assert "did not arrive within 1 s" in json.loads(body)["detail"]
        assert impatient.is_healthy()


def test_a_client_that_drips_its_body_is_answered_408(impatient: ApiProcess, key: str) -> None:
    with begun(impatient, key) as bare:
        assert drip(bare, b" ", LONGEST).startswith(b"HTTP/1.1 408 ")


def test_slow_bodies_hold_no_database_connection(shared: Database, key: str, impatient: ApiProcess) -> None:
    """With three times as many unfinished bodies as the pool has connections, other requests are served."""
    with api_process(shared.url, body_timeout_seconds=120) as patient, ExitStack() as stack:
        for _ in range(3 * CONNECTIONS):
            stack.enter_context(begun(patient, key))
        with patient.client(key) as client:
            assert [client.get(KEPT).status_code for _ in range(5)] == [200] * 5


def test_a_storm_of_connections_does_not_stop_health(impatient: ApiProcess, shared: Database, key: str) -> None:
    with api_process(shared.url, header_timeout_seconds=120) as patient, ExitStack() as stack:
        storm = [stack.enter_context(patient.socket()) for _ in range(500)]
        assert patient.is_healthy()
        message = request("GET", KEPT).replace(KEY, key.encode())
        for bare in storm:
            bare.sendall(message)
        assert patient.is_healthy()
        assert [bare.recv(12) for bare in storm] == [b"HTTP/1.1 200"] * 500
        assert patient.is_healthy()


def test_sigterm_finishes_open_requests_and_exits_with_0(shared: Database, key: str, impatient: ApiProcess) -> None:
    statuses: list[int] = []
    with api_process(shared.url) as stopping, psycopg.connect(shared.url) as holder:
        holder.execute("SELECT FROM routines.routines WHERE name = 'kept' FOR UPDATE")
        with stopping.client(key) as client:
            asking = threading.Thread(
                target=lambda: statuses.append(client.patch(KEPT, json={"paused": False}).status_code)
            )
            asking.start()
            wait_until(lambda: waits_for_a_lock(shared))
            stopping.process.send_signal(signal.SIGTERM)
            wait_until(lambda: not stopping.is_healthy())
            assert stopping.process.poll() is None
            holder.rollback()
            asking.join()
        assert statuses == [200]
        assert stopping.process.wait(timeout=30) == 0


def waits_for_a_lock(database: Database) -> bool:
    with psycopg.connect(database.url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'routines-api' AND wait_event_type = 'Lock'"
        ).fetchone()
    return bool(row and row[0])


# --- connections and lengths ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_request_with_both_lengths_is_read_by_its_chunks(shared: Database, key: str, order: tuple[int, int]) -> None:
    """The web server drops the Content-Length before the API sees it, so nothing can read the request by it."""
    lengths = ("Content-Length: 3", "Transfer-Encoding: chunked")
    head = [
        "POST /api/v1/tasks/my-org HTTP/1.1", "Host: x", f"Authorization: Bearer {key}", "Connection: close",
        *(lengths[index] for index in order), "", "",
    ]  # fmt: skip
    with api_process(shared.url) as api:
        answer = send(api, "\r\n".join(head).encode() + b'd\r\n{"unknown":1}\r\n0\r\n\r\n')
    assert answer.status == 400
    assert b"unknown field" in answer.content


def test_connections_beyond_the_limit_wait_until_one_closes(shared: Database) -> None:
    with api_process(shared.url, max_connections=16, header_timeout_seconds=60) as api:
        idle = [api.socket() for _ in range(16)]
        time.sleep(0.5)
        with api.socket() as waiting:
            waiting.sendall(b"GET /api/v1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            waiting.settimeout(1)
            with pytest.raises(TimeoutError):
                waiting.recv(1)
            idle.pop().close()
            waiting.settimeout(30)
            assert waiting.recv(12) == b"HTTP/1.1 200"
        for each in idle:
            each.close()
