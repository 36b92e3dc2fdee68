"""Run as root and as an ordinary user, on a machine and in a container: who runs Postgres, and who owns the files."""

import os
import pwd
import shutil
import tempfile
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pytest

from routines_core.embedded import running_url
from routines_core.embedded.account import ACCOUNTS
from routines_core.embedded.binaries import find_binaries
from support.account import NOBODY, STRANGER, default_container, only_root, ordinary_user, stranger
from support.sampling import left_out
from support.service import Service, wait_until

pytestmark = [pytest.mark.slow, only_root]


def owners(directory: Path) -> set[int]:
    """Return who owns its files, whose server may delete and create some meanwhile."""
    found: set[int] = set()
    for path in (directory, *directory.rglob("*")):
        with suppress(FileNotFoundError):
            found.add(path.lstat().st_uid)
    return found


def uid_of_server(service: Service) -> int:
    pid = int((service.data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0])
    return Path(f"/proc/{pid}").stat().st_uid


def account() -> int:
    """Return the id of the first of the candidate accounts that exists on this machine."""
    known = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
    return next(known[name] for name in ACCOUNTS if name in known)


@left_out
def test_an_ordinary_user_can_create_start_and_stop_a_service_and_owns_every_file(tmp_path: Path) -> None:
    os.chown(tmp_path, NOBODY, NOBODY)
    service = Service(tmp_path, prefix=ordinary_user())
    service.start()
    assert uid_of_server(service) == NOBODY
    assert owners(service.data_dir) == {NOBODY}
    service.stop()
    service.start()
    service.stop()


def test_root_keeps_its_files_if_it_may_enter_a_user_namespace(tmp_path: Path) -> None:
    service = Service(tmp_path)
    service.start()
    assert owners(service.data_dir) == {0}
    service.stop()


def test_root_in_a_default_container_hands_the_cluster_to_an_ordinary_account(tmp_path: Path) -> None:
    service = Service(tmp_path, prefix=default_container())
    service.start()
    assert uid_of_server(service) == account()
    assert owners(service.data_dir / "postgres") == {account()}
    assert (service.data_dir / "demo.key").stat().st_uid == 0
    with service.client() as client:
        assert client.get("/routines/demo").status_code == 200
    service.process.kill()
    service.process.wait()
    wait_until(lambda: running_url(service.data_dir) is None)
    service.start()
    service.stop()


def test_binaries_below_a_directory_that_only_root_may_enter_work_in_a_default_container(tmp_path: Path) -> None:
    # As with a checkout in /root: pytest's directories are closed to other accounts too.
    package = find_binaries().parents[1]
    for directory in package.parent.glob(f"{package.name}*"):  # its libraries are installed next to it
        shutil.copytree(directory, tmp_path / directory.name, symlinks=True)
    tmp_path.chmod(0o700)
    binaries = tmp_path / find_binaries().relative_to(package.parent)
    service = Service(tmp_path, prefix=default_container(), ROUTINES_POSTGRES_BIN=str(binaries))
    service.start()
    assert uid_of_server(service) == account()
    service.stop()


def test_a_cluster_can_move_between_a_machine_and_a_container(tmp_path: Path) -> None:
    for prefix, owner in (((), 0), (default_container(), account()), ((), account())):
        service = Service(tmp_path, prefix=prefix)
        service.start()
        assert owners(service.data_dir / "postgres") == {owner}
        assert service.execute("SELECT count(*) FROM routines.routines") == [(1,)]
        service.stop()


def test_a_long_path_works_in_a_container_too(tmp_path: Path) -> None:
    (directory := tmp_path / ("long" * 30)).mkdir()
    service = Service(directory, prefix=default_container())
    service.start()
    record = Path((service.data_dir / "socket_dir").read_text())
    assert owners(record) == {account()}
    service.stop()
    shutil.rmtree(record)


def test_root_is_told_what_to_do_if_it_can_neither_enter_a_namespace_nor_change_the_owner(tmp_path: Path) -> None:
    line = Service(tmp_path, prefix=default_container(without="chown")).refusal()
    assert "does not let root enter a user namespace (unshare: Operation not permitted)" in line
    assert "run routines as an ordinary user, or set DATABASE_URL" in line


@pytest.fixture
def open_directory() -> Generator[Path]:
    """A directory of the stranger, which pytest's own would not let it enter."""
    if any(not parent.stat().st_mode & 0o001 for parent in find_binaries().parents):
        pytest.skip("the Postgres binaries are below a directory that only root may enter")
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        os.chown(directory, STRANGER, STRANGER)
        yield directory


def test_a_user_id_without_an_account_can_create_start_and_stop_a_service(open_directory: Path) -> None:
    assert STRANGER not in {entry.pw_uid for entry in pwd.getpwall()}
    service = Service(open_directory, prefix=stranger())
    service.start()
    assert uid_of_server(service) == STRANGER
    assert owners(service.data_dir) == {STRANGER}
    service.stop()
    service.start()
    service.stop()


def test_a_user_id_without_an_account_is_told_what_to_do_where_it_may_not_enter_a_namespace(
    open_directory: Path,
) -> None:
    line = Service(open_directory, prefix=stranger(may_unshare=False)).refusal()
    assert f"Postgres refuses the user id {STRANGER}, which has no account in /etc/passwd" in line
    assert "run routines as an account that exists, add one for this id, or set DATABASE_URL" in line
