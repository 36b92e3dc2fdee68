"""The token of a calendar feed reads that feed's slots, and nothing else."""

from datetime import timedelta

import pytest
from psycopg import errors

from routines_core.db import Connection, connect
from routines_core.db import feeds as db
from routines_core.db.peppers import Peppers
from routines_core.errors import NotFoundError
from support.rows import KEYRING, at, make_key, make_routine, make_task, value

NOW = at("2026-05-06 10:17")


async def two_tenants(connection: Connection) -> int:
    """Create a routine in each of two collections and a feed of the first; return the feed's id."""
    await make_routine(connection, await make_task(connection), NOW + timedelta(hours=1), name="mine")
    await connection.execute(
        """WITH other AS (INSERT INTO routines.collections (name) VALUES ('other') RETURNING id),
                task AS (INSERT INTO routines.tasks (collection_id, name) SELECT id, 't' FROM other
                         RETURNING id, collection_id),
                version AS (INSERT INTO routines.task_versions (task_id, version, workflow)
                            SELECT id, 1, '{}' FROM task)
           INSERT INTO routines.routines (collection_id, task_id, name, cadence_type)
           SELECT collection_id, id, 'r', 'hourly' FROM task"""
    )
    key = int((await make_key(connection, "my-org")).split("_")[1])
    return (await db.create_feed(connection, Peppers(KEYRING), key_id=key, task=None, routine=None)).id


async def test_a_token_reads_its_feed_and_the_rest_of_its_transaction_sees_nothing(
    connection: Connection, logins: dict[str, str]
) -> None:
    feed = await two_tenants(connection)
    token = db.ParsedFeedToken(feed, "wrong")
    async with connect(logins["routines_api"], "api") as api, api.transaction():
        with pytest.raises(NotFoundError):
            await db.open_feed(api, token, Peppers(KEYRING))
        assert await db.take_feed_tokens(api, feed, wanted=1, rate=1, burst=2)
        assert [each.routine for each in await db.feed_slots(api, feed, now=NOW)] == ["echo/mine"]
        for table in ("collections", "tasks", "routines", "routine_names", "trajectories", "feeds"):
            assert await value(api, f"SELECT count(*) FROM routines.{table}") == 0, table
        assert await value(api, "SELECT current_setting('routines.collection_id')") == ""


async def test_a_feed_never_shows_what_another_collection_has(connection: Connection) -> None:
    """Even if somebody at psql gives a feed a task of another collection's, the database refuses it."""
    feed = await two_tenants(connection)
    with pytest.raises(errors.ForeignKeyViolation):
        await connection.execute("UPDATE routines.feeds SET task_id = (SELECT id FROM routines.tasks WHERE name = 't')")
    await connection.execute(
        """UPDATE routines.feeds SET task_id = (SELECT id FROM routines.tasks WHERE name = 'echo'),
               routine_id = (SELECT id FROM routines.routines WHERE name = 'r')"""
    )
    assert await db.feed_slots(connection, feed, now=NOW) == []
    assert await value(connection, f"SELECT title FROM routines.feed_to_check({feed:d})") == "my-org/echo"


@pytest.mark.parametrize(
    "statement", ["SELECT secret_hash FROM routines.feeds", "UPDATE routines.feeds SET tokens = 1"]
)
@pytest.mark.parametrize("role", ["routines_api", "routines_reader", "routines_ticker", "routines_worker"])
async def test_no_role_reads_hashes_or_changes_feeds(logins: dict[str, str], role: str, statement: str) -> None:
    async with connect(logins[role], "test") as login:
        with pytest.raises(errors.InsufficientPrivilege):
            await login.execute(statement.encode())


@pytest.mark.parametrize("role", ["routines_reader", "routines_ticker", "routines_worker"])
async def test_only_the_api_reads_feeds(connection: Connection, logins: dict[str, str], role: str) -> None:
    feed = await two_tenants(connection)
    async with connect(logins[role], "test") as login:
        with pytest.raises(errors.InsufficientPrivilege):
            await db.feed_slots(login, feed)
