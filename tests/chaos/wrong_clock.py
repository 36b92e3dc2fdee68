"""Give processes a wrong clock, for real: compile and preload wrong_clock.c."""

import atexit
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

SECONDS_VARIABLE = "WRONG_CLOCK_SECONDS"
SOURCE = Path(__file__).with_name("wrong_clock.c")
CHANGES = [datetime(2027, 3, 28, 1, tzinfo=UTC), datetime(2027, 10, 31, 1, tzinfo=UTC)]
"""When the clocks of Europe go forward, and back again."""


@cache
def _library() -> Path | None:
    """Return the compiled library, or None without Linux and a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        return None
    directory = mkdtemp(prefix="wrong-clock-")
    Path(directory).chmod(0o755)  # a server may run as another account
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    library = Path(directory) / "wrong_clock.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], check=True)
    return library


def wrong_clock(seconds: int) -> dict[str, str]:
    """Return the environment of a process whose clock is off by this much; empty for 0, or if that is not possible."""
    library = _library()
    return {"LD_PRELOAD": str(library), SECONDS_VARIABLE: str(seconds)} if library and seconds else {}


def seconds_to_a_change(seed: int, seconds: float) -> int:
    """Return how far a clock must be ahead for Europe's clocks to change in the middle of a run that begins now."""
    return round(CHANGES[seed % 2].timestamp() - time.time() - seconds / 2)
