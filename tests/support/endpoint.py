"""Serve HTTP on loopback with the answers a test chooses, and record every request."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Asked(NamedTuple):
    """A request as the endpoint received it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Said(NamedTuple):
    """The answer to a request."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed


@dataclass
class Endpoint:
    """A running endpoint.

    Attributes:
        answer: Returns the answer to a request.
        asked: Every request so far.
    """

    url: str = ""
    answer: Callable[[Asked], Said] = lambda _: Said()
    asked: list[Asked] = field(default_factory=list)


@contextmanager
def serving() -> Generator[Endpoint]:
    """Yield an endpoint that serves until the end of the block."""
    endpoint = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            headers = {name.lower(): text for name, text in self.headers.items()}
            asked = Asked(self.command, self.path, headers, self.rfile.read(length))
            endpoint.asked.append(asked)
            said = endpoint.answer(asked)
            self.send_response(said.status)
            for name, text in {"Content-Length": str(len(said.body)), **said.headers}.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(said.body)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_any  # noqa: N815 - the names come from http.server

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name comes from http.server
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    endpoint.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
