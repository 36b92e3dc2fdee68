"""Run programs as another account, because the programs must work both for root and for an ordinary user."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

NOBODY = 65534
STRANGER = 54321
"""A user id without an entry in /etc/passwd, as containers are given one."""
CONTAINER_CAPABILITIES = (
    "chown,dac_override,fsetid,fowner,mknod,net_raw,setgid,setuid,setfcap,setpcap,net_bind_service,sys_chroot,kill,"
    "audit_write"
)
"""The capabilities that root keeps in a container started without options. Source: Docker's defaults."""

only_root = pytest.mark.skipif(
    os.geteuid() != 0 or sys.platform != "linux", reason="needs root; the other tests already run as an ordinary user"
)


def ordinary_user(uid: int = NOBODY) -> Sequence[str]:
    """Return a command prefix that runs the rest of the command line as a user, able to read whatever root can read.

    The program is not root, owns nothing and cannot regain privileges. It keeps one capability, CAP_DAC_READ_SEARCH:
    the interpreter and the checkout may lie below a directory that only root may enter, as pytest's temporary ones do.
    """
    return (
        "setpriv",
        f"--reuid={uid}",
        f"--regid={uid}",
        "--clear-groups",
        "--no-new-privs",
        "--securebits=+no_setuid_fixup",  # so that access(2) honours the capability too
        "--bounding-set=-all,+dac_read_search",
        "--inh-caps=-all,+dac_read_search",
        "--ambient-caps=-all,+dac_read_search",
    )


def default_container(*, without: str = "") -> Sequence[str]:
    """Return a command prefix that runs the rest of the command line as root does in a default container.

    It has fewer capabilities than root on the host, and no user namespaces.

    Args:
        without: One more of the `CONTAINER_CAPABILITIES` to drop.
    """
    kept = [f"+{name}" for name in CONTAINER_CAPABILITIES.split(",") if name != without]
    return (
        "setpriv",
        f"--bounding-set=-all,{','.join(kept)}",
        "--inh-caps=-all",
        sys.executable,
        str(Path(__file__).with_name("refuse_unshare.py")),
    )


def stranger(*, may_unshare: bool = True) -> Sequence[str]:
    """Return a command prefix that runs the rest of the command line under a user id that no account has."""
    script = Path(__file__).with_name("refuse_unshare.py")
    return (*ordinary_user(STRANGER), *(() if may_unshare else (sys.executable, str(script))))
