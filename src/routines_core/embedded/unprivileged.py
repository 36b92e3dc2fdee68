"""Run a program of Postgres as the owner of its cluster, since postgres refuses uid 0, and tie it to its parent.

`python -I unprivileged.py PARENT_PID CLUSTER PROGRAM ARGUMENTS…`, a program of its own so that nothing happens between
fork and exec of a threaded parent. Started by root it stops being root, in one of two ways:

- The cluster is root's: it enters a user namespace in which it is uid 65534. No account is needed, and no file changes
  hands. `python -I unprivileged.py` alone tells, by its exit code, whether this system lets root do that.
- The cluster is an account's: it becomes that account, with one right of root kept, the one to pass directories that
  only root may enter, for the cluster or the binaries may lie below one (/root).

A PARENT_PID other than 0 asks for SIGINT, a fast shutdown, when that parent dies (Linux only).
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

_CLONE_NEWUSER = 0x10000000  # linux/sched.h
_PR_SET_PDEATHSIG, _PR_SET_SECUREBITS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 1, 28, 47, 2  # linux/prctl.h
_SECBIT_NO_SETUID_FIXUP = 4  # linux/securebits.h
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2  # linux/capability.h
_CAPABILITY_VERSION_3 = 0x20080522  # the same: 64 capabilities, as two words of 32
_NOBODY = 65534

_libc = ctypes.CDLL(None, use_errno=True)


def _enter_namespace() -> None:
    if sys.platform != "linux":
        sys.exit("only Linux has them")
    uid, gid = os.geteuid(), os.getegid()
    if _libc.unshare(_CLONE_NEWUSER):
        sys.exit(f"unshare: {os.strerror(ctypes.get_errno())}")
    Path("/proc/self/setgroups").write_text("deny", "ascii")
    Path("/proc/self/uid_map").write_text(f"{_NOBODY} {uid} 1", "ascii")
    Path("/proc/self/gid_map").write_text(f"{_NOBODY} {gid} 1", "ascii")


def _become(uid: int, gid: int) -> None:
    if sys.platform == "linux":
        # Else the rights end with uid 0, and access(2), by which Postgres looks at its binaries, would not heed them.
        _libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if sys.platform == "linux":
        # Reading is enough; a default container has given up that right, but not the wider one.
        any(map(_keep_capability, (_CAP_DAC_READ_SEARCH, _CAP_DAC_OVERRIDE)))


def _keep_capability(capability: int) -> bool:
    """Keep this one over the coming exec, and none beside it; False: it was not ours."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    bit = 1 << capability
    sets = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)  # effective, permitted, inheritable
    kept: int = _libc.capset(header, sets)
    return kept == 0 and _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0) == 0


def _die_with(parent: int) -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGINT))
    if os.getppid() != parent:  # it died before it could be watched
        sys.exit(1)


def main() -> None:
    """Become unprivileged, then be the program."""
    if len(sys.argv) == 1:
        _enter_namespace()
        return
    parent, cluster, program = int(sys.argv[1]), Path(sys.argv[2]).stat(), sys.argv[3]
    if os.geteuid() == 0:
        if cluster.st_uid == 0:
            _enter_namespace()
        else:
            _become(cluster.st_uid, cluster.st_gid)
    if parent and sys.platform == "linux":
        _die_with(parent)
    os.execv(program, sys.argv[3:])  # noqa: S606 - the point of this file


main()
