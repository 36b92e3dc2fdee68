"""Create the rows that tests need, in plain SQL as a person would type it in psql."""

import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from routines_core.db import Connection
from routines_core.db.keys import create_key
from routines_core.db.peppers import Peppers
from routines_core.keyring import Keyring
from routines_core.settings import Settings

CATCHUP = {"hourly_catchup_seconds": 3600.0, "catchup_seconds": 12 * 3600.0}
"""The default catch-up windows, as arguments of `tick`."""
ENCRYPTION_KEYS = "k1:" + base64.b64encode(bytes(range(32))).decode()
KEYRING = Keyring.parse(ENCRYPTION_KEYS)


def api_settings(**changed: Any) -> Settings:
    """Return settings for an API under test: everything enabled, and a rate limit that no test reaches by accident."""
    defaults = {
        "enable_routines": True,
        "encryption_keys": ENCRYPTION_KEYS,
        "rate_per_second": 1e6,
        "rate_burst": 10**6,
    }
    return Settings(**{**defaults, **changed})


@dataclass(frozen=True)
class Database:
    """A migrated database that belongs to one test."""

    url: str


def with_database(url: str, name: str) -> str:
    """Return the URL of another database on the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def with_login(url: str, login: str, password: str) -> str:
    """Return the URL of the same database for another login."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{login}:{password}@{parts.netloc.rpartition('@')[2]}"))


def at(text: str) -> datetime:
    """Parse a UTC time such as `2026-05-04 09:00`."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


async def make_key(connection: Connection, collection: str, *, expires_in_seconds: float | None = None) -> str:
    """Create an API key of this collection, which an API with `api_settings` accepts."""
    return await create_key(connection, collection, Peppers(KEYRING), expires_in_seconds=expires_in_seconds)


async def make_task(connection: Connection, workflow: str = '{"init_params": {"text": "hello", "size": 1}}') -> int:
    """Create the task `echo` in the collection `my-org` and return its id."""
    cursor = await connection.execute(
        """WITH collection AS (
               INSERT INTO routines.collections (name) VALUES ('my-org')
               ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING id),
           task AS (INSERT INTO routines.tasks (collection_id, name) SELECT id, 'echo' FROM collection RETURNING id)
           INSERT INTO routines.task_versions (task_id, version, workflow) SELECT id, 1, %s::json FROM task
           RETURNING task_id""",
        [workflow],
    )
    row = await cursor.fetchone()
    assert row
    return row[0]


async def make_routine(
    connection: Connection,
    task_id: int,
    next_run_at: datetime,
    *,
    name: str = "morning",
    hourly: bool = False,
) -> int:
    """Create a routine, daily at 09:00 or hourly at :00, whose next slot is `next_run_at`, and return its id."""
    cursor = await connection.execute(
        """WITH made AS (
               INSERT INTO routines.routines (collection_id, task_id, name, cadence_type, hour_utc)
               SELECT collection_id, id, %s::text, CASE WHEN %s::boolean THEN 'hourly' ELSE 'daily' END,
                      CASE WHEN %s::boolean THEN NULL ELSE 9 END
               FROM routines.tasks WHERE id = %s::bigint RETURNING id)
           SELECT id FROM made""",
        [name, hourly, hourly, task_id],
    )
    row = await cursor.fetchone()
    assert row
    await connection.execute("UPDATE routines.routines SET next_run_at = %s WHERE id = %s", [next_run_at, row[0]])
    return row[0]


async def ledger(connection: Connection, routine_id: int) -> list[tuple[object, ...]]:
    """Return (first slot, slot_count, outcome, reason) for each ledger row of the routine, oldest slot first."""
    cursor = await connection.execute(
        "SELECT scheduled_for, slot_count, outcome, reason FROM routines.occurrences "
        "WHERE routine_id = %s ORDER BY scheduled_for",
        [routine_id],
    )
    return await cursor.fetchall()


async def value(connection: Connection, query: str, *parameters: object) -> object:
    """Return the first column of the first row, or None if there is no row."""
    row = await (await connection.execute(query.encode(), parameters)).fetchone()
    return row[0] if row else None
