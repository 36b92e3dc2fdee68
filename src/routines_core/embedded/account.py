"""Whose the cluster is. postgres refuses to be root, so where root starts it the cluster decides who runs it.

An ordinary user's cluster is the user's. Root's stays root's where root may enter a user namespace; a default container
refuses that, and there the cluster is handed to the account `postgres`, or to `nobody`.
"""

import os
import pwd
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from routines_core.errors import EmbeddedServerError

ACCOUNTS = ("postgres", "nobody")
"""Who may run the server for root, the best first."""

_UNPRIVILEGED = str(Path(__file__).with_name("unprivileged.py"))


def run_as_owner(cluster: Path, parent: int = 0) -> list[str]:
    """What stands before a program's command line so that the cluster's owner runs it.

    Args:
        cluster: The cluster's directory.
        parent: The process whose death ends the program; 0 for none.
    """
    return [sys.executable, "-I", _UNPRIVILEGED, str(parent), str(cluster)]


def settle_owner(cluster: Path) -> None:
    """Hand root's cluster to an account where root cannot run it; everybody else's stays as it is.

    Raises:
        EmbeddedServerError: Root can neither enter a user namespace nor hand the cluster over.
    """
    if os.geteuid() != 0 or cluster.stat().st_uid != 0:
        return
    probe = subprocess.run(  # noqa: S603 - our own command line
        [sys.executable, "-I", _UNPRIVILEGED], stderr=subprocess.PIPE, text=True, check=False
    )
    if probe.returncode:
        _hand_over(cluster, reason=probe.stderr.strip())


def give_to_owner(path: Path, cluster: Path) -> None:
    """Give what belongs beside a cluster to the cluster's owner."""
    if os.geteuid() == 0:
        owner = cluster.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def _hand_over(cluster: Path, *, reason: str) -> None:
    try:
        account = _first_account()
        # The top last: it says whose the cluster is, and a hand-over that was cut short is begun again.
        for path in sorted((cluster, *cluster.rglob("*")), reverse=True):
            os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
    except (OSError, LookupError) as error:
        raise EmbeddedServerError(
            f"postgres refuses to run as root, this system lets root enter no user namespace ({reason}), and {cluster} "
            f"cannot be given to another account ({error}): run routines as an ordinary user, or set DATABASE_URL."
        ) from None


def _first_account() -> pwd.struct_passwd:
    for name in ACCOUNTS:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise LookupError(f"there is none named {' or '.join(ACCOUNTS)}")
