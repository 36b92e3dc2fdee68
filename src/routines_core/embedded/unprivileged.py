"""Runs a Postgres program as the owner of its cluster, since postgres refuses uid 0, and ties it to its parent.

`python -I unprivileged.py PARENT_PID CLUSTER PROGRAM ARGUMENTS…`. This is a separate program because a multi-threaded
parent must not run code between fork and exec. A user id without an account, which initdb refuses, enters a user
namespace as an account that exists. If root starts it, it gives up root in one of two ways:

- Root owns the cluster: it enters a user namespace as `nobody`. This changes no file's owner. Without arguments, the
  exit code of `python -I unprivileged.py` says whether this system allows it.
- Another account owns the cluster: it becomes that account, keeping one capability of root, to pass through
  directories that only root may enter, since the cluster or the binaries may be below one (/root).

If PARENT_PID is not 0, the program receives SIGINT, a fast shutdown, when that parent dies (Linux only).
"""

import ctypes
import os
import pwd
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
        sys.exit("only Linux has user namespaces")
    uid, gid, inside = os.geteuid(), os.getegid(), _some_account()
    if _libc.unshare(_CLONE_NEWUSER):
        sys.exit(f"unshare: {os.strerror(ctypes.get_errno())}")
    # As bytes: the interpreter's own files may be out of reach now, and with them the codecs.
    Path("/proc/self/setgroups").write_bytes(b"deny")
    Path("/proc/self/uid_map").write_bytes(b"%d %d 1" % (inside, uid))
    Path("/proc/self/gid_map").write_bytes(b"%d %d 1" % (_NOBODY, gid))


def _some_account() -> int:
    """Return the user id of an account other than root, preferably `nobody`: 65534 where there is none."""
    accounts = {each.pw_name: each.pw_uid for each in pwd.getpwall() if each.pw_uid}
    return accounts.get("nobody") or next(iter(accounts.values()), _NOBODY)


def _has_account() -> bool:
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return True


def _become(uid: int, gid: int) -> None:
    if sys.platform == "linux":
        # Otherwise the capabilities end with uid 0, and access(2), which Postgres uses on its binaries, ignores them.
        _libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if sys.platform == "linux":
        # DAC_READ_SEARCH is enough, but a default container has only the wider DAC_OVERRIDE.
        any(map(_keep_capability, (_CAP_DAC_READ_SEARCH, _CAP_DAC_OVERRIDE)))


def _keep_capability(capability: int) -> bool:
    """Keep only this capability across exec; returns False if the process does not have it."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    bit = 1 << capability
    sets = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)  # effective, permitted, inheritable
    kept: int = _libc.capset(header, sets)
    return kept == 0 and _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0) == 0


def _die_with(parent: int) -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGINT))
    if os.getppid() != parent:  # the parent died before prctl took effect
        sys.exit(1)


def main() -> None:
    """Give up root, then replace this process with the program."""
    if len(sys.argv) == 1:
        _enter_namespace()
        return
    parent, cluster, program = int(sys.argv[1]), Path(sys.argv[2]).stat(), sys.argv[3]
    if os.geteuid() == 0:
        if cluster.st_uid == 0:
            _enter_namespace()
        else:
            _become(cluster.st_uid, cluster.st_gid)
    elif not _has_account():
        _enter_namespace()
    if parent and sys.platform == "linux":
        _die_with(parent)
    os.execv(program, sys.argv[3:])  # noqa: S606 - this is the purpose of the file


main()
