"""Run a program of Postgres as somebody who is not root, since postgres refuses uid 0, and tie it to its parent.

`python -I unprivileged.py PARENT_PID PROGRAM ARGUMENTS…`, a program of its own so that nothing happens between fork
and exec of a threaded parent. As root it enters a user namespace in which it is uid 65534: no account is made, no file
changes hands, and directories that only root may enter stay so. A PARENT_PID other than 0 asks for SIGINT, a fast
shutdown, when that parent dies (Linux only).
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

_CLONE_NEWUSER = 0x10000000  # linux/sched.h
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_NOBODY = 65534


def _leave_root() -> None:
    uid, gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER):
        sys.exit(
            "postgres refuses to run as root, and this system lets root enter no user namespace "
            f"({os.strerror(ctypes.get_errno())}): run routines as an ordinary user, or set DATABASE_URL."
        )
    Path("/proc/self/setgroups").write_text("deny", "ascii")
    Path("/proc/self/uid_map").write_text(f"{_NOBODY} {uid} 1", "ascii")
    Path("/proc/self/gid_map").write_text(f"{_NOBODY} {gid} 1", "ascii")


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGINT))
    if os.getppid() != parent:  # it died before it could be watched
        sys.exit(1)


def main() -> None:
    """Become unprivileged, then be the program."""
    parent, program = int(sys.argv[1]), sys.argv[2]
    if os.geteuid() == 0:
        _leave_root()
    if parent and sys.platform == "linux":
        _die_with(parent)
    os.execv(program, sys.argv[2:])  # noqa: S606 - the point of this file


main()
