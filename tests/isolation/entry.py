"""Start a program of Routines with a stall meter on its event loop: `python entry.py api|ticker|worker`.

The product is unchanged. The meter wraps `uvloop.run`, schedules a callback every few milliseconds and records how late
it runs. Time spent waiting for a core is subtracted, as the kernel reports it: a machine that other tests keep busy
must not look like a busy loop. A second thread samples the stack during a stall, so a failure names the line.

Each stall is a line of JSON in the file ISOLATION_STALLS, `{"at", "seconds", "where"}`; a long one is several lines
with the same `at`.
"""

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from types import FrameType
from typing import Any

import uvloop

TICK_SECONDS = 0.005
"""Interval of the callback."""
NOTED_SECONDS = 0.04
"""Shorter stalls are not recorded."""
LONG_SECONDS = 0.5
"""A stall that lasts this long is recorded before it ends, and again after each further interval."""
LOOK_SECONDS = 0.03
"""Interval of the second thread."""
FRAMES = 6
"""Number of innermost frames shown."""


class LoopMeter:
    """Measures stalls of the main thread's event loop."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._schedstat = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY)
        self._main = threading.get_ident()
        self._last = time.monotonic()
        self._delay = self._run_delay()
        self._where = ""

    def start(self) -> None:
        """Start measuring the running loop."""
        threading.Thread(target=self._look, daemon=True).start()
        self._last = time.monotonic()
        asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        if self._stood() > NOTED_SECONDS:
            self._note()
        self._where = ""
        self._last, self._delay = time.monotonic(), self._run_delay()
        asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def _stood(self) -> float:
        """Return how long the loop has stalled so far, in seconds."""
        return time.monotonic() - self._last - TICK_SECONDS - (self._run_delay() - self._delay)

    def _note(self) -> None:
        line = {"at": self._last, "seconds": round(self._stood(), 3), "where": self._where}
        os.write(self._file, json.dumps(line).encode() + b"\n")

    def _run_delay(self) -> float:
        """Return how long the main thread has waited for a core in total, in seconds."""
        return int(os.pread(self._schedstat, 100, 0).split()[1]) / 1e9

    def _look(self) -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            stood = self._stood()
            if stood > NOTED_SECONDS and not self._where:
                self._where = _shown(sys._current_frames().get(self._main))
            if stood > LONG_SECONDS:  # it may never end
                self._note()
                time.sleep(LONG_SECONDS)


def _shown(frame: FrameType | None) -> str:
    places: list[str] = []
    while frame is not None and len(places) < FRAMES:
        places.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return " < ".join(places)


def install(path: Path) -> None:
    """Make `uvloop.run` start a meter together with the program."""
    run = uvloop.run

    def metered_run(main: Coroutine[Any, Any, Any], **options: Any) -> Any:
        async def metered() -> Any:
            LoopMeter(path).start()
            return await main

        return run(metered(), **options)

    uvloop.run = metered_run


if __name__ == "__main__":
    sys.path.pop(0)  # this directory: its modules are the tests' own
    install(Path(os.environ["ISOLATION_STALLS"]))
    from routines_cli.main import main

    main()
