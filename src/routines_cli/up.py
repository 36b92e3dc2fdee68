"""`routines up`: the whole service in one command, on a Postgres of its own where none is given."""

import asyncio
import fcntl
import socket
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import structlog

from routines_cli.demo import make_demo
from routines_cli.engines import require_engine
from routines_cli.supervisor import Supervisor
from routines_core.db import connect
from routines_core.db.migrations import migrate
from routines_core.embedded import EmbeddedServer
from routines_core.errors import ConfigurationError
from routines_core.keyring import KEPT_KEY_FILE, generate_key, load_keyring
from routines_core.lifecycle import sleep_or_stop, stop_event
from routines_core.listening import refuse_unfit_address
from routines_core.logging import configure_logging
from routines_core.settings import Settings

log = structlog.get_logger("up")

PARTS = ("api", "ticker", "worker")
"""What runs beside the database: names of `routines` commands."""


async def up(settings: Settings) -> None:
    """Migrate, start every part, keep them running, and stop them all at SIGTERM or SIGINT.

    Raises:
        ConfigurationError: The address or the data directory cannot be used, or another `routines up` uses it.
        EmbeddedServerError: The embedded Postgres does not start.
        DatabaseError: The database cannot be reached or is too old.
        RoutinesError: ROUTINES_ENGINE=temporal, and no fit server of Temporal answers.
    """
    configure_logging(settings.log_format)
    stop = stop_event()
    refuse_unfit_address(settings)
    await require_engine(settings)
    with _data_dir(settings.data_dir), _database(settings) as url:
        settings = _with_encryption_key(settings)
        async with connect(url, "routines-up") as connection:
            await migrate(connection)
            await make_demo(connection, settings.data_dir, load_keyring(settings))
        supervisor = Supervisor(_environment(settings, url), stop, _watched_parts())
        async with asyncio.TaskGroup() as parts:
            for part in PARTS:
                parts.create_task(supervisor.keep(part))
            parts.create_task(_announce(settings, stop))


async def _announce(settings: Settings, stop: asyncio.Event) -> None:
    """Print the one line that scripts wait for, once the API answers."""
    while not stop.is_set():
        try:
            _, writer = await asyncio.open_connection(settings.host, settings.port)
        except OSError:
            await sleep_or_stop(stop, 0.05)
        else:
            writer.close()
            print(f"ready http://{settings.host}:{settings.port}", flush=True)
            if settings.console:  # on stderr: stdout has the one line that scripts wait for
                log.info("the console", url=f"http://{settings.host}:{settings.port}/console")
            return


def _environment(settings: Settings, url: str) -> dict[str, str]:
    """What the parts get to see: of keys that are in a file its path alone."""
    shown = {"DATABASE_URL": url, "ENABLE_ROUTINES": "true"}
    if settings.encryption_keys_file:
        shown["ROUTINES_ENCRYPTION_KEYS_FILE"] = str(settings.encryption_keys_file)
    return shown


def _watched_parts() -> dict[str, dict[str, str]]:
    """Ports of loopback for the metrics of all parts but the API, which is told of them and shows all of it at once.

    A port that another program takes before the part does is not lost for ever: the part tries it again and again.
    """
    with ExitStack() as chosen:  # all held until the last is chosen, so that no two are the same
        probes = {part: chosen.enter_context(socket.socket()) for part in PARTS if part != "api"}
        for probe in probes.values():
            probe.bind(("127.0.0.1", 0))
        ports = {part: int(probe.getsockname()[1]) for part, probe in probes.items()}
    pages = ",".join(f"{part}=http://127.0.0.1:{port}/metrics" for part, port in ports.items())
    own = {
        part: {"ROUTINES_METRICS_HOST": "127.0.0.1", "ROUTINES_METRICS_PORT": str(port)} for part, port in ports.items()
    }
    return {**own, "api": {"ROUTINES_METRICS_PARTS": pages}}


def _with_encryption_key(settings: Settings) -> Settings:
    """The settings with the data directory's key, made at the first start, where no other is given.

    Without it no stored secret opens again.
    """
    if settings.encryption_keys or settings.encryption_keys_file:
        return settings
    path = settings.data_dir / KEPT_KEY_FILE
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(generate_key(), "ascii")
    return settings.model_copy(update={"encryption_keys_file": path.absolute()})


@contextmanager
def _data_dir(path: Path) -> Generator[None]:
    """The data directory, held by this process alone."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (path / "up.lock").open("w", encoding="ascii")
    except OSError as error:
        raise ConfigurationError(
            f"The data directory {path} cannot be written ({error.strerror}): set ROUTINES_DATA_DIR to one that can."
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"Another `routines up` runs in {path}: stop it, or set ROUTINES_DATA_DIR to another directory."
            ) from None
        yield


@contextmanager
def _database(settings: Settings) -> Generator[str]:
    """`DATABASE_URL`, or the embedded server's, which is stopped at the end of the block."""
    if settings.database_url:
        yield settings.database_url
        return
    server = EmbeddedServer(settings.data_dir)
    server.start()
    try:
        yield server.url()
    finally:
        server.stop()
