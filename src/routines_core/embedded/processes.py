"""What the process table says: /proc where there is one (slim images have no ps), ps elsewhere."""

import subprocess
from pathlib import Path

_ENDED = "ZX"  # proc(5): a zombie, and one that is just vanishing


def is_running(pid: int, program: str) -> bool:
    """Whether this process is alive and is that program; a zombie is not alive."""
    state, name = _from_proc(pid) if Path("/proc/self/stat").exists() else _from_ps(pid)
    return state not in _ENDED and program in name


def _from_proc(pid: int) -> tuple[str, str]:
    """State and name of `pid (name) state …`, where the name itself may hold spaces and brackets."""
    try:
        before, _, after = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")
    except OSError:
        return "X", ""
    return after.split()[0], before.partition("(")[2]


def _from_ps(pid: int) -> tuple[str, str]:
    found = subprocess.run(  # noqa: S603 - the same on macOS and the BSDs
        ["ps", "-o", "stat=,comm=", "-p", str(pid)],  # noqa: S607 - wherever ps is
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split(maxsplit=1)
    return (found[0][0], found[1]) if len(found) > 1 else ("X", "")
