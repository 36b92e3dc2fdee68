"""The command line: one command per program, and the operator's tools."""
# ruff: noqa: E402 - a program takes its signals before it imports what takes time

import sys

from routines_core.early import await_signals
from routines_core.log_stream import keep_standard_streams

PROGRAMS = ("api", "ticker", "worker", "up")
"""Commands that run until they are stopped."""

if sys.argv[1:2] and sys.argv[1] in PROGRAMS:
    await_signals()
    keep_standard_streams()

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, BinaryIO, ParamSpec, cast

import click
import uvloop

from routines_core.distribution import DISTRIBUTION
from routines_core.errors import NotFoundError, RoutinesError
from routines_core.logging import reduce_tracebacks
from routines_core.settings import Settings, load_settings

if TYPE_CHECKING:
    from routines_core.db import Connection

Parameters = ParamSpec("Parameters")


def _async_command(function: Callable[Parameters, Coroutine[Any, Any, None]]) -> Callable[Parameters, None]:
    """Make a command of a coroutine function; expected errors become one line on stderr and exit code 1."""

    @wraps(function)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            uvloop.run(function(*args, **kwargs))
        except Exception as error:
            expected = _expected(error)
            if expected is None:
                raise
            print(f"routines: {expected}", file=sys.stderr)
            sys.exit(1)

    return run


def _expected(error: Exception) -> RoutinesError | None:
    """Find the error to show to the operator.

    Returns:
        An error that Routines raised deliberately, or the translation of a database error; None if this is a bug.
    """
    from routines_core.db.operator_messages import refusal

    if isinstance(error, ExceptionGroup):
        return _expected(cast("ExceptionGroup[Exception]", error).exceptions[0])
    return error if isinstance(error, RoutinesError) else refusal(error)


def _program(function: Callable[[Settings], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Make a command of a program, which runs until it is stopped."""

    @wraps(function)
    async def run() -> None:
        from routines_cli.programs import run_program

        await run_program(function, load_settings())

    return _async_command(run)


def _database_url(settings: Settings) -> str:
    from routines_cli.connecting import database_url

    return database_url(settings)


@click.group()
@click.version_option(package_name=DISTRIBUTION)
def main() -> None:
    """A scheduler on Postgres that accounts for every slot of every routine."""
    reduce_tracebacks()


@main.command()
@_program
async def up(settings: Settings) -> None:
    """Run API, ticker and worker together. Starts an embedded Postgres if no database is named."""
    from routines_cli.up import up as run

    await run(settings)


@main.command()
@click.option(
    "--plan", is_flag=True, help="Only show what would be applied, and what it locks, rewrites, reads and writes."
)
@_async_command
async def migrate(*, plan: bool) -> None:
    """Update the database schema to this version."""
    from routines_cli.migrating import migrate as run
    from routines_cli.migrating import show_plan
    from routines_core.logging import configure_logging

    settings = load_settings()
    configure_logging(settings.log_format)
    for line in await (show_plan if plan else run)(_database_url(settings)):
        print(line)


@main.command()
@_program
async def api(settings: Settings) -> None:
    """Serve the HTTP API."""
    from routines_api.server import run_api
    from routines_core.tracing import tracing

    with tracing("api"):
        await run_api(settings, _database_url(settings))


@main.group()
def keys() -> None:
    """Create, list, rotate and revoke API keys."""


DAY_SECONDS = 86_400
MOST_DAYS = 36_500
"""A hundred years, well within the range of a Postgres timestamp."""
DAYS = click.FloatRange(min=0, min_open=True, max=MOST_DAYS)
KEY_ID = click.IntRange(1, 2**63 - 1)


@asynccontextmanager
async def _naming_new(connection: "Connection", collection: str) -> AsyncGenerator[None]:
    """Say on stderr, after the block, if it made the collection: its name may be mistyped."""
    from routines_core.db.limits import find_collection

    try:
        await find_collection(connection, collection)
        is_new = False
    except NotFoundError:
        is_new = True
    yield
    if is_new:
        click.echo(f"{collection} is a new collection.", err=True)


@keys.command()
@click.option("--collection", required=True, help="Collection that the key gives access to; created if it is new.")
@click.option("--expires-in", type=DAYS, metavar="DAYS", help="Days until the key expires. Default: never.")
@_async_command
async def create(collection: str, expires_in: float | None) -> None:
    """Create an API key and print it. It is shown only once; only its hash is stored."""
    from routines_cli.connecting import connected
    from routines_core.db.keys import create_key
    from routines_core.db.peppers import Peppers
    from routines_core.keyring import load_keyring

    settings = load_settings()
    peppers = Peppers(load_keyring(settings))
    async with connected(settings, "keys") as connection, _naming_new(connection, collection):
        print(await create_key(connection, collection, peppers, expires_in_seconds=_seconds(expires_in)))


@keys.command()
@click.argument("key_id", type=KEY_ID)
@click.option("--grace", type=click.FloatRange(min=0, max=MOST_DAYS), default=7, show_default=True, metavar="DAYS",
              help="How long the old key stays valid; revoke it earlier once no client uses it.")  # fmt: skip
@click.option("--expires-in", type=DAYS, metavar="DAYS", help="Days until the new key expires. Default: never.")
@_async_command
async def rotate(key_id: int, grace: float, expires_in: float | None) -> None:
    """Replace an API key. Prints a new key for the same collection; the old one expires after the grace period."""
    from routines_cli.connecting import connected
    from routines_core.db.keys import rotate_key
    from routines_core.db.peppers import Peppers
    from routines_core.keyring import load_keyring

    settings = load_settings()
    peppers = Peppers(load_keyring(settings))
    async with connected(settings, "keys") as connection:
        print(await rotate_key(connection, key_id, peppers, grace_seconds=grace * DAY_SECONDS,
                               expires_in_seconds=_seconds(expires_in)))  # fmt: skip


def _seconds(days: float | None) -> float | None:
    return None if days is None else days * DAY_SECONDS


@keys.command("list")
@_async_command
async def list_() -> None:
    """List all API keys. Shows id, collection, creation date, expiry, last use and state, but never the secret."""
    from routines_cli.connecting import connected
    from routines_core.db.keys import list_keys

    async with connected(load_settings(), "keys") as connection:
        for key in await list_keys(connection):
            expires = f"expires {key.expires_at:%Y-%m-%d %H:%M}" if key.expires_at else "never expires"
            used = f"used {key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never used"
            print(f"{key.id}\t{key.collection_name}\tcreated {key.created_at:%Y-%m-%d}\t{expires}\t{used}\t{key.state}")


@keys.command()
@click.argument("key_id", type=KEY_ID)
@_async_command
async def revoke(key_id: int) -> None:
    """Revoke an API key. Every process refuses it at once."""
    from routines_cli.connecting import connected
    from routines_core.db.keys import revoke_key

    async with connected(load_settings(), "keys") as connection:
        await revoke_key(connection, key_id)


@main.group(invoke_without_command=True)
@click.option("--collection", help="Show all limits of this collection, with its use.")
@click.pass_context
@_async_command
async def limits(context: click.Context, collection: str | None) -> None:
    """List the limits that were set. With --collection, all limits of the collection and how much of each it uses."""
    from routines_cli.connecting import connected
    from routines_cli.limits import list_all, list_set

    if context.invoked_subcommand:
        return
    async with connected(load_settings(), "limits") as connection:
        for line in await (list_all(connection, collection) if collection else list_set(connection)):
            print(line)


@limits.command("set")
@click.argument("name")
@click.argument("value")
@click.option("--collection", required=True, help="Collection that is limited.")
@click.option("--task", help="Only for max_concurrent_runs: limit only this task of the collection.")
@_async_command
async def set_limit(name: str, value: str, collection: str, task: str | None) -> None:
    """Set a limit of a collection. VALUE is an integer, for bytes also a size such as 16MiB; `none` means no limit."""
    await _change_limit("set_limit", name, value, collection=collection, task=task)


@limits.command("set-default")
@click.argument("name")
@click.argument("value")
@_async_command
async def set_default_limit(name: str, value: str) -> None:
    """Set a limit for all collections that have no value of their own."""
    await _change_limit("set_limit", name, value, collection=None)


@limits.command("reset")
@click.argument("name")
@click.option("--collection", help="Collection that gets the default again. Without it: reset the default itself.")
@click.option("--task", help="Only for max_concurrent_runs: remove the limit of this task of the collection.")
@_async_command
async def reset_limit(name: str, collection: str | None, task: str | None) -> None:
    """Return a limit to its default, or a default to its built-in value."""
    await _change_limit("reset_limit", name, collection=collection, task=task)


async def _change_limit(change: str, *arguments: str, **scope: str | None) -> None:
    from routines_cli import limits as commands
    from routines_cli.connecting import connected
    from routines_core.logging import configure_logging

    settings = load_settings()
    configure_logging(settings.log_format)
    async with connected(settings, "limits") as connection:
        await getattr(commands, change)(connection, *arguments, **scope)


@main.group()
def secrets() -> None:
    """Manage the encryption of the stored secrets."""


@secrets.command("rotate")
@_async_command
async def rotate_secrets() -> None:
    """Encrypt every stored secret under the first key. Safe while everything runs, and safe to interrupt and repeat."""
    from routines_cli.secrets import rotate as run

    settings = load_settings()
    await run(settings)


@main.group()
def tasks() -> None:
    """Manage tasks as files."""


@tasks.command("apply")
@click.argument("file", type=click.File("rb"))
@click.option("--collection", required=True, help="Collection of the task; created if it is new.")
@_async_command
async def apply_file(file: BinaryIO, collection: str) -> None:
    """Save a task from a JSON file. The file contains {name, description, workflow}; - reads stdin. Safe to repeat."""
    from routines_cli.connecting import connected
    from routines_cli.task_files import read_task
    from routines_core.db.tasks import apply_task

    task = read_task(file.read())
    async with connected(load_settings(), "tasks") as connection, _naming_new(connection, collection):
        version = await apply_task(connection, collection=collection, **task.model_dump())
    print(f"{collection}/{task.name} is at version {version}")


@main.command("after-restore")
@_async_command
async def after_restore() -> None:
    """Move all ids on after a restore or an asynchronous failover, so that none of a lost run is given out again."""
    from routines_cli.after_restore import after_restore as run
    from routines_cli.connecting import connected

    async with connected(load_settings(), "after-restore") as connection:
        for line in await run(connection):
            print(line)


@main.command()
@_async_command
async def recompute() -> None:
    """Move coming slots to where the time zones of the server have them now, on record. Safe while everything runs."""
    from routines_cli.clocks import recompute as run
    from routines_cli.connecting import connected

    async with connected(load_settings(), "recompute") as connection:
        for line in await run(connection):
            print(line)


@main.command()
@_program
async def ticker(settings: Settings) -> None:
    """Start runs of due routines. Any number of tickers may run."""
    from routines_core.tracing import tracing
    from routines_ticker.ticker import run_ticker

    with tracing("ticker"):
        await run_ticker(settings, _database_url(settings))


@main.command()
@_program
async def worker(settings: Settings) -> None:
    """Execute pending runs. Any number of workers may run."""
    from routines_cli.engines import run_engine
    from routines_core.tracing import tracing

    with tracing("worker"):
        await run_engine(settings, _database_url(settings))


@main.command()
@click.option("--url", "url_only", is_flag=True, help="Print only the database URL, with its password, for psql.")
@click.option("--quick", is_flag=True, help="Skip the stored secrets and Temporal: for health checks.")
@_async_command
async def doctor(*, url_only: bool, quick: bool) -> None:
    """Check the installation. Covers database, schema, stored secrets, engine and roles; shows how to run psql."""
    settings = load_settings()
    url = _database_url(settings)
    if url_only:
        print(url)
        return
    from routines_cli.doctor import examine

    if not await examine(settings, url, quick=quick):
        sys.exit(1)


if __name__ == "__main__":
    main()
