"""Who runs a program: for tests that root runs, since `make test` must say of both root and a user that it works."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

NOBODY = 65534
CONTAINER_CAPABILITIES = (
    "chown,dac_override,fsetid,fowner,mknod,net_raw,setgid,setuid,setfcap,setpcap,net_bind_service,sys_chroot,kill,"
    "audit_write"
)
"""What root keeps in a container that was started without options. Source: the default of Docker."""

only_root = pytest.mark.skipif(
    os.geteuid() != 0 or sys.platform != "linux", reason="the other tests run as an ordinary user already"
)


def ordinary_user() -> Sequence[str]:
    """A command line that runs the rest of it as `nobody`, who may read what root may.

    Not root, not an owner of anything, no way back. The one right it keeps is CAP_DAC_READ_SEARCH: the interpreter and
    the checkout may lie below a directory that only root may enter, and pytest's temporary ones do.
    """
    return (
        "setpriv",
        f"--reuid={NOBODY}",
        f"--regid={NOBODY}",
        "--clear-groups",
        "--no-new-privs",
        "--securebits=+no_setuid_fixup",  # access(2) heeds the right as well
        "--bounding-set=-all,+dac_read_search",
        "--inh-caps=-all,+dac_read_search",
        "--ambient-caps=-all,+dac_read_search",
    )


def default_container(*, without: str = "") -> Sequence[str]:
    """A command line that runs the rest of it as root in a default container: fewer rights, no user namespaces.

    Args:
        without: A capability of `CONTAINER_CAPABILITIES` that is taken away as well.
    """
    kept = [f"+{name}" for name in CONTAINER_CAPABILITIES.split(",") if name != without]
    return (
        "setpriv",
        f"--bounding-set=-all,{','.join(kept)}",
        "--inh-caps=-all",
        sys.executable,
        str(Path(__file__).with_name("refuse_unshare.py")),
    )
