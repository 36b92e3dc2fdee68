"""The command line: one command for each program, and what an operator needs beside them."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec

import click

from routines_core.errors import ConfigurationError, RoutinesError
from routines_core.settings import Settings, load_settings

Parameters = ParamSpec("Parameters")


def _async_command(function: Callable[Parameters, Coroutine[Any, Any, None]]) -> Callable[Parameters, None]:
    """Run the command's coroutine; whatever Routines raises on purpose is one line on stderr and exit code 1."""

    @wraps(function)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            asyncio.run(function(*args, **kwargs))
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
@_async_command
async def doctor() -> None:
    """Print where the database is and whether it is fit."""
    from routines_core.db import connect
    from routines_core.db.migrations import check_server_version, pending_migrations

    url = _database_url(load_settings())
    async with connect(url, "routines-doctor") as connection:
        version = await check_server_version(connection)
        pending = await pending_migrations(connection)
    print(f"database  {_without_password(url)}")
    print(f"postgres  {version}")
    print(f"schema    {f'{len(pending)} migrations to apply: run `routines migrate`' if pending else 'up to date'}")
    if pending:
        sys.exit(1)


def _without_password(url: str) -> str:
    from urllib.parse import urlsplit, urlunsplit

    parts = urlsplit(url)
    if parts.password is None:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", ":********@")))


if __name__ == "__main__":
    main()
