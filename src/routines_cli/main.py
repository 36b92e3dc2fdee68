"""The command line: one command for each program, and what an operator needs beside them."""

import sys
from collections.abc import Callable, Coroutine
from functools import wraps
from shlex import quote
from typing import Any, BinaryIO, ParamSpec

import click
import uvloop

from routines_core.errors import ConfigurationError, RoutinesError
from routines_core.settings import Settings, load_settings

Parameters = ParamSpec("Parameters")


def _async_command(function: Callable[Parameters, Coroutine[Any, Any, None]]) -> Callable[Parameters, None]:
    """Run the command's coroutine; whatever Routines raises on purpose is one line on stderr and exit code 1."""

    @wraps(function)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            uvloop.run(function(*args, **kwargs))
        except RoutinesError as error:
            print(f"routines: {error}", file=sys.stderr)
            sys.exit(1)

    return run


def _database_url(settings: Settings) -> str:
    """`DATABASE_URL`, or the server that `routines up` runs in the data directory."""
    from routines_core.embedded import running_url

    url = settings.database_url or running_url(settings.data_dir)
    if url is None:
        raise ConfigurationError(
            f"No database: DATABASE_URL is not set and no server runs in {settings.data_dir}. "
            "Start one with `routines up`, or set DATABASE_URL."
        )
    return url


@click.group()
@click.version_option(package_name="routines")
def main() -> None:
    """A scheduler on Postgres that accounts for every slot of every routine."""


@main.command()
@_async_command
async def up() -> None:
    """Everything at once, on a Postgres of its own where no DATABASE_URL is set."""
    from routines_cli.up import up as run

    await run(load_settings())


@main.command()
@_async_command
async def migrate() -> None:
    """Bring the database's schema up to date."""
    from routines_core.db import connect
    from routines_core.db.migrations import migrate as apply

    async with connect(_database_url(load_settings()), "routines-migrate") as connection:
        applied = await apply(connection)
    for migration in applied:
        print(f"applied {migration.name}")
    print(f"{len(applied)} migrations applied" if applied else "the schema is up to date")


@main.command()
@_async_command
async def api() -> None:
    """Serve the HTTP API."""
    from routines_api.server import run_api
    from routines_core.logging import configure_logging

    settings = load_settings()
    configure_logging(settings.log_format)
    await run_api(settings, _database_url(settings))


@main.group()
def keys() -> None:
    """Make, list and revoke API keys."""


@keys.command()
@click.option("--collection", required=True, help="The collection that the key opens; made where it is new.")
@_async_command
async def create(collection: str) -> None:
    """Print a new key, alone, once: only its hash is kept."""
    from routines_core.db import connect
    from routines_core.db.keys import create_key

    async with connect(_database_url(load_settings()), "routines-keys") as connection:
        print(await create_key(connection, collection))


@keys.command("list")
@_async_command
async def list_() -> None:
    """List all keys, without their secrets."""
    from routines_core.db import connect
    from routines_core.db.keys import list_keys

    async with connect(_database_url(load_settings()), "routines-keys") as connection:
        for key in await list_keys(connection):
            state = f"revoked {key.revoked_at:%Y-%m-%d}" if key.revoked_at else "active"
            print(f"{key.id}\t{key.collection_name}\tmade {key.created_at:%Y-%m-%d}\t{state}")


@keys.command()
@click.argument("key_id", type=int)
@_async_command
async def revoke(key_id: int) -> None:
    """Close a key at once, on every process."""
    from routines_core.db import connect
    from routines_core.db.keys import revoke_key

    async with connect(_database_url(load_settings()), "routines-keys") as connection:
        await revoke_key(connection, key_id)


@main.group()
def tasks() -> None:
    """Keep tasks in files."""


@tasks.command("apply")
@click.argument("file", type=click.File("rb"))
@click.option("--collection", required=True, help="Where the task lives; made where it is new.")
@_async_command
async def apply_file(file: BinaryIO, collection: str) -> None:
    """Save the task of a JSON file, {name, description, workflow}; - reads stdin. May be repeated."""
    from routines_cli.task_files import read_task
    from routines_core.db import connect
    from routines_core.db.tasks import apply_task

    task = read_task(file.read())
    async with connect(_database_url(load_settings()), "routines-tasks") as connection:
        version = await apply_task(connection, collection=collection, **task.model_dump())
    print(f"{collection}/{task.name} is at version {version}")


@main.command()
@_async_command
async def ticker() -> None:
    """Claim due routines and fire them; run as many as you like."""
    from routines_core.logging import configure_logging
    from routines_ticker.ticker import run_ticker

    settings = load_settings()
    configure_logging(settings.log_format)
    await run_ticker(settings, _database_url(settings))


@main.command()
@_async_command
async def worker() -> None:
    """Claim pending runs and run their workflows; run as many as you like."""
    from routines_core.logging import configure_logging
    from routines_engine.worker import run_worker

    settings = load_settings()
    configure_logging(settings.log_format)
    await run_worker(settings, _database_url(settings))


@main.command()
@click.option("--url", "url_alone", is_flag=True, help="Print the database's URL alone, with its password, for psql.")
@_async_command
async def doctor(*, url_alone: bool) -> None:
    """Print where the database is, whether it is fit, and how to open psql on it."""
    url = _database_url(load_settings())
    if url_alone:
        print(url)
        return
    await _examine(url)


async def _examine(url: str) -> None:
    from routines_cli.standing import describe
    from routines_core.db import connect, roles
    from routines_core.db.migrations import check_server_version, pending_migrations
    from routines_core.embedded import find_psql

    async with connect(url, "routines-doctor") as connection:
        version = await check_server_version(connection)
        pending = await pending_migrations(connection)
        standing = None if pending else await roles.standing(connection)
    psql = find_psql()
    open_psql = f"{quote(psql)} {quote(_without_password(url))}" if psql else "not found: install it"
    print(f"database  {_without_password(url)}")
    print(f"postgres  {version}")
    print(f"schema    {f'{len(pending)} migrations to apply: run `routines migrate`' if pending else 'up to date'}")
    for line in describe(standing) if standing else []:
        print(line)
    print(f"psql      {open_psql}")
    if pending or (standing and standing.open_tables):
        sys.exit(1)


def _without_password(url: str) -> str:
    from urllib.parse import urlsplit, urlunsplit

    parts = urlsplit(url)
    if parts.password is None:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", ":********@")))


if __name__ == "__main__":
    main()
