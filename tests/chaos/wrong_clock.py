"""Give processes a wrong clock, for real: compile and preload wrong_clock.c."""

import atexit
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

SECONDS_VARIABLE = "WRONG_CLOCK_SECONDS"
SOURCE = Path(__file__).with_name("wrong_clock.c")


@cache
def _library() -> Path | None:
    """Return the compiled library, or None without Linux and a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        return None
    directory = mkdtemp(prefix="wrong-clock-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    library = Path(directory) / "wrong_clock.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], check=True)
    return library


def wrong_clock(seconds: int) -> dict[str, str]:
    """Return the environment of a process whose clock is off by this much; empty for 0, or if that is not possible."""
    library = _library()
    return {"LD_PRELOAD": str(library), SECONDS_VARIABLE: str(seconds)} if library and seconds else {}
