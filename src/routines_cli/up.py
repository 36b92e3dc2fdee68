"""`routines up`: the whole service in one command, with an embedded Postgres if no database is named."""

import asyncio
import fcntl
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import structlog

from routines_cli.demo import make_demo
from routines_cli.engines import require_engine
from routines_cli.supervisor import Supervisor
from routines_cli.target import refuse_foreign_database, target_of
from routines_core.db import connect
from routines_core.db.migrations import migrate
from routines_core.db.schema import examine_schema
from routines_core.embedded import EmbeddedServer
from routines_core.errors import ConfigurationError
from routines_core.keyring import KEPT_KEY_FILE, generate_key, load_keyring
from routines_core.lifecycle import sleep_or_stop, stop_event
from routines_core.listening import refuse_unfit_address
from routines_core.log_stream import say
from routines_core.settings import Settings

log = structlog.get_logger("up")

PROGRAMS = ("api", "ticker", "worker")
"""The programs that it runs, named like their `routines` commands."""
LAST_PORT = 65535


async def up(settings: Settings) -> None:
    """Migrate the database, keep all programs running, and stop them on SIGTERM or SIGINT.

    Raises:
        ConfigurationError: The address, the metrics port or the data directory cannot be used, or another `routines up`
            uses the data directory.
        EmbeddedServerError: The embedded Postgres does not start.
        DatabaseError: The database cannot be reached or is too old.
        RoutinesError: ROUTINES_ENGINE=temporal, and no suitable Temporal server answers.
    """
    stop = stop_event()
    refuse_unfit_address(settings)
    own = _metrics_ports(settings)
    await require_engine(settings)
    log.info("database", target=target_of(settings))
    with _data_dir(settings.data_dir), _database(settings) as url:
        settings = _with_encryption_key(settings)
        async with connect(url, "routines-up") as connection:
            await refuse_foreign_database(connection, settings)
            await migrate(connection)
            if newer := await examine_schema(connection):
                log.warning("schema is newer", detail=newer)
            await make_demo(connection, settings.data_dir, load_keyring(settings))
        supervisor = Supervisor(_environment(settings, url), stop, own)
        async with asyncio.TaskGroup() as group:
            for program in PROGRAMS:
                group.create_task(supervisor.keep(program))
            group.create_task(_announce(settings, stop))


async def _announce(settings: Settings, stop: asyncio.Event) -> None:
    """Print the ready line, which scripts wait for, once the API answers."""
    while not stop.is_set():
        try:
            _, writer = await asyncio.open_connection(settings.host, settings.port)
        except OSError:
            await sleep_or_stop(stop, 0.05)
        else:
            writer.close()
            say(f"ready http://{settings.host}:{settings.port}")
            if settings.console:  # on stderr: stdout carries only the ready line
                log.info("console available", url=f"http://{settings.host}:{settings.port}/console")
            return


def _environment(settings: Settings, url: str) -> dict[str, str]:
    """Return the programs' environment; encryption keys in a file are passed as its path.

    Routines are enabled unless ENABLE_ROUTINES says otherwise.
    """
    is_enabled = settings.enable_routines or "enable_routines" not in settings.model_fields_set
    shown = {
        "DATABASE_URL": url,
        "ROUTINES_DATABASE_URL": url,
        "ENABLE_ROUTINES": str(is_enabled).lower(),
        "ROUTINES_FILES": settings.files or str((settings.data_dir / "files").absolute()),
    }
    if settings.encryption_keys_file:
        shown["ROUTINES_ENCRYPTION_KEYS_FILE"] = str(settings.encryption_keys_file)
    return shown


def _metrics_ports(settings: Settings) -> dict[str, dict[str, str]]:
    """Assign the metrics ports: the ticker gets ROUTINES_METRICS_PORT, the worker the next one, both on loopback.

    The API needs no second port: it shows its metrics on its own. Without the setting, no program gets a port.

    Returns:
        Environment variables by program.

    Raises:
        ConfigurationError: There is no next port.
    """
    port = settings.metrics_port
    if port is None:
        return {}
    if port == LAST_PORT:
        raise ConfigurationError(
            f"ROUTINES_METRICS_PORT: `routines up` also needs the next port: choose at most {LAST_PORT - 1}."
        )
    ports = {"api": "", "ticker": str(port), "worker": str(port + 1)}  # empty: not set
    return {
        program: {"ROUTINES_METRICS_HOST": "127.0.0.1", "ROUTINES_METRICS_PORT": own} for program, own in ports.items()
    }


def _with_encryption_key(settings: Settings) -> Settings:
    """Add the data directory's encryption key if the settings name none; generate it on the first start."""
    if settings.encryption_keys or settings.encryption_keys_file:
        return settings
    path = (settings.data_dir / KEPT_KEY_FILE).absolute()
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(generate_key(), "ascii")
    return settings.model_copy(update={"encryption_keys_file": path})


@contextmanager
def _data_dir(path: Path) -> Generator[None]:
    """Create the data directory if needed and lock it for this process."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (path / "up.lock").open("w", encoding="ascii")
    except OSError as error:
        raise ConfigurationError(
            f"Cannot write to the data directory {path} ({error.strerror}): "
            "set ROUTINES_DATA_DIR to a writable directory."
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"Another `routines up` is running in {path}: stop it, or set ROUTINES_DATA_DIR to another directory."
            ) from None
        yield


@contextmanager
def _database(settings: Settings) -> Generator[str]:
    """Yield DATABASE_URL, or the URL of an embedded server that is stopped at the end of the block."""
    if settings.database_url:
        yield settings.database_url
        return
    server = EmbeddedServer(settings.data_dir)
    server.start()
    try:
        yield server.url()
    finally:
        server.stop()
