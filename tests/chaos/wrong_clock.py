"""Processes whose host's clock is wrong, for real: wrong_clock.c, compiled and preloaded."""

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
    """The compiled library; None where there is no C compiler, or no Linux."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        return None
    directory = mkdtemp(prefix="wrong-clock-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    library = Path(directory) / "wrong_clock.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], check=True)
    return library


def wrong_clock(seconds: int) -> dict[str, str]:
    """The environment of a process whose clock is off by so much; empty where that cannot be had, or for 0."""
    library = _library()
    return {"LD_PRELOAD": str(library), SECONDS_VARIABLE: str(seconds)} if library and seconds else {}
