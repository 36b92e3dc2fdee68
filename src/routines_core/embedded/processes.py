"""Reads the process table, from /proc if it exists (slim images have no ps), otherwise from ps."""

import subprocess
from pathlib import Path

_ENDED = "ZX"  # process states of proc(5): zombie and dead


def is_running(pid: int, program: str) -> bool:
    """Check whether this process is alive and runs that program; a zombie counts as dead."""
    state, name = _from_proc(pid) if Path("/proc/self/stat").exists() else _from_ps(pid)
    return state not in _ENDED and program in name


def _from_proc(pid: int) -> tuple[str, str]:
    """Return state and name from `pid (name) state …`; the name may contain spaces and parentheses."""
    try:
        before, _, after = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")
    except OSError:
        return "X", ""
    return after.split()[0], before.partition("(")[2]


def _from_ps(pid: int) -> tuple[str, str]:
    found = subprocess.run(  # noqa: S603 - fixed arguments
        ["ps", "-o", "stat=,comm=", "-p", str(pid)],  # noqa: S607 - ps is looked up on PATH
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split(maxsplit=1)
    return (found[0][0], found[1]) if len(found) > 1 else ("X", "")
