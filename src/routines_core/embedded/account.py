"""The owner of the embedded cluster. postgres refuses to run as root, so root runs it as the cluster's owner.

An ordinary user owns their own cluster. A user id without an account, as containers have it, runs Postgres in a user
namespace, in which it has one. Root keeps its cluster if it may enter a user namespace; a default container
does not allow that, so there the cluster is handed over to the account `postgres` or `nobody`.
"""

import os
import pwd
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from routines_core.errors import EmbeddedServerError

ACCOUNTS = ("postgres", "nobody")
"""Accounts that may run the server for root, in order of preference."""

_UNPRIVILEGED = str(Path(__file__).with_name("unprivileged.py"))


def run_as_owner(cluster: Path, parent: int = 0) -> list[str]:
    """Return the prefix of a command line that makes it run as the cluster's owner.

    Args:
        cluster: The cluster's directory.
        parent: Process id whose death also ends the program; 0 for none.
    """
    return [sys.executable, "-I", _UNPRIVILEGED, str(parent), str(cluster)]


def settle_owner(cluster: Path) -> None:
    """Hand a cluster owned by root over to an account if root cannot run it; other clusters are left alone.

    Raises:
        EmbeddedServerError: Root can neither enter a user namespace nor hand the cluster over, or this user id has no
            account and may not enter one either.
    """
    if os.geteuid() == 0:
        if cluster.stat().st_uid == 0 and (reason := _why_no_namespace()):
            _hand_over(cluster, reason=reason)
    elif not _has_account() and (reason := _why_no_namespace()):
        raise EmbeddedServerError(
            f"Postgres refuses the user id {os.geteuid()}, which has no account in /etc/passwd, and this system does "
            f"not let it enter a user namespace ({reason}): run routines as an account that exists, add one for this "
            "id, or set DATABASE_URL."
        )


def _has_account() -> bool:
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return True


def _why_no_namespace() -> str:
    """Return why this process cannot enter a user namespace; empty if it can."""
    probe = subprocess.run(  # noqa: S603 - our own command line
        [sys.executable, "-I", _UNPRIVILEGED], stderr=subprocess.PIPE, text=True, check=False
    )
    return (probe.stderr.strip() or "it is not allowed").splitlines()[-1] if probe.returncode else ""


def give_to_owner(path: Path, cluster: Path) -> None:
    """Give a path to the cluster's owner."""
    if os.geteuid() == 0:
        owner = cluster.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def _hand_over(cluster: Path, *, reason: str) -> None:
    try:
        account = _first_account()
        # The top directory last: its owner counts as the cluster's, so an interrupted hand-over starts again.
        for path in sorted((cluster, *cluster.rglob("*")), reverse=True):
            os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
    except (OSError, LookupError) as error:
        raise EmbeddedServerError(
            f"postgres refuses to run as root, this system does not let root enter a user namespace ({reason}), and "
            f"{cluster} cannot be given to another account ({error}): run routines as an ordinary user, or set "
            "DATABASE_URL."
        ) from None


def _first_account() -> pwd.struct_passwd:
    for name in ACCOUNTS:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise LookupError(f"no account is named {' or '.join(ACCOUNTS)}")
