"""The stream that logs go to. It never stops the program: a line that cannot be written is dropped and counted.

A disk may be full, a pipe closed, or its reader frozen, so that a write would block for ever.
"""

import io
import os
import select
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import TextIO

PATIENCE_SECONDS = 0.05
"""How long a line waits for a reader that is behind. Once lines are dropped, the next ones do not wait."""
PIPE_BYTES = select.PIPE_BUF
"""A pipe that can be written takes this many bytes without blocking."""


class LogStream(io.TextIOBase):
    """Writes lines to a stream as well as it can.

    Attributes:
        lost: How many writes were dropped or cut off.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._descriptor = _descriptor_of(stream)
        self._untold = 0
        self._may_wait = True
        self.lost = 0

    def write(self, text: str, /) -> int:
        """Write the text, or drop it. Says how much was lost once it can."""
        if self._untold and self._is_written(f"{self._untold} lines of the log could not be written and are lost\n"):
            self._untold = 0
        if self._untold or not self._is_written(text):
            self.lost += 1
            self._untold += 1
        return len(text)

    def writelines(self, lines: Iterable[str], /) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Do nothing: nothing is buffered."""

    def writable(self) -> bool:
        """Return True."""
        return True

    def isatty(self) -> bool:
        """Return whether people read the stream directly."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return the descriptor of the stream."""
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride] - read-only here
        """The encoding of the stream."""
        return "utf-8"

    def _is_written(self, text: str) -> bool:
        try:
            if self._descriptor is None:
                self._stream.write(text)
                self._stream.flush()
                return True
            return self._is_written_to(self._descriptor, text.encode("utf-8", "backslashreplace"))
        except (OSError, ValueError):  # ValueError: it was closed
            return False

    def _is_written_to(self, descriptor: int, content: bytes) -> bool:
        left = memoryview(content)
        while left:
            if not self._has_room(descriptor):
                return False
            left = left[os.write(descriptor, left[:PIPE_BYTES]) :]
        return True

    def _has_room(self, descriptor: int) -> bool:
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        self._may_wait = bool(poll.poll(1000 * PATIENCE_SECONDS if self._may_wait else 0))
        return self._may_wait


def _descriptor_of(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):  # captured in memory
        return None


def lost_lines() -> int:
    """Return how many lines of the log this process has lost."""
    return sys.stderr.lost if isinstance(sys.stderr, LogStream) else 0


def keep_standard_streams() -> None:
    """Make stdin, stdout and stderr usable for as long as the process runs.

    A descriptor that is closed would be given to the next file or connection, which prints would then go into.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor, which is this one
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - for ever
    sys.stderr = LogStream(sys.stderr or open(2, "w", encoding="utf-8", closefd=False))  # noqa: SIM115 - for ever


def say(line: str) -> None:
    """Print a line on stdout. If nobody reads it any more, that is no reason to stop."""
    try:
        print(line, flush=True)  # noqa: T201 - this is the purpose
    except (OSError, ValueError):
        with suppress(OSError):  # what is buffered is written once more when the process exits
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
