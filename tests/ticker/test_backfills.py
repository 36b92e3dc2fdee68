"""The ticker looks at open backfills each second, and one that fails holds up no other."""

import asyncio
from datetime import UTC, datetime

from routines_core.db import Connection, connect
from routines_core.db.tick import seconds_until_due
from routines_core.settings import Settings
from routines_ticker.batches import Batches
from routines_ticker.ticker import Ticker
from support.plans import buffers, explained
from support.rows import Database, make_routine, make_task, value
from support.stepping import until

SOON = "UPDATE routines.routines SET next_run_at = now() + interval '30 minutes'"
BACKFILL = """INSERT INTO routines.backfills (routine_id, from_time, until_time)
              VALUES (%s, '2026-05-04 09:00Z', '2026-05-04 12:00Z') RETURNING id"""
RUNS = "SELECT array_agg(fills_slot ORDER BY id) FROM routines.trajectories"
END = "UPDATE routines.trajectories SET status = 'completed', ended_at = now() WHERE ended_at IS NULL"


async def hourly(connection: Connection, *names: str) -> list[int]:
    task = await make_task(connection)
    found = [await make_routine(connection, task, datetime.now(UTC), name=name, hourly=True) for name in names]
    await connection.execute(SOON)
    return found


async def test_a_ticker_fills_the_slots_one_by_one_with_the_rights_of_its_role(
    connection: Connection, database: Database
) -> None:
    [routine] = await hourly(connection, "r")
    await connection.execute(BACKFILL, [routine])
    stop = asyncio.Event()

    async def one_ticker() -> None:
        async with connect(database.url, "ticker", role="routines_ticker") as own:
            await Ticker(Settings(), stop).run(own)

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(one_ticker())
        for number in range(3):
            await until(connection, "SELECT count(*) = %s FROM routines.trajectories", number + 1)
            await connection.execute(END)
        await until(connection, "SELECT ended_at IS NOT NULL FROM routines.backfills")
        stop.set()
    assert await value(connection, RUNS) == [datetime(2026, 5, 4, hour, tzinfo=UTC) for hour in (9, 10, 11)]


async def test_a_backfill_that_fails_is_held_for_a_minute_and_says_why(connection: Connection) -> None:
    bad, good = await hourly(connection, "bad", "good")
    for routine in (bad, good):
        await connection.execute(BACKFILL, [routine])
    await connection.execute(
        f"""CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN IF NEW.triggered_by_routine_id = {bad} THEN RAISE EXCEPTION ''poison''; END IF; RETURN NEW; END'"""
    )
    await connection.execute(
        "CREATE TRIGGER poison BEFORE INSERT ON routines.trajectories FOR EACH ROW EXECUTE FUNCTION poison()"
    )
    batches = Batches(Settings(), connection)
    assert await batches.expand() == 1
    assert await value(connection, "SELECT triggered_by_routine_id FROM routines.trajectories") == good
    held = """SELECT held_by = 'poison' AND next_look_at > now() + interval '55 s' FROM routines.backfills
              WHERE routine_id = %s"""
    assert await value(connection, held, bad) is True
    assert await value(connection, "SELECT held_by FROM routines.backfills WHERE routine_id = %s", good) is None


async def test_a_ticker_knows_whether_there_is_a_backfill_to_look_at(connection: Connection) -> None:
    [routine] = await hourly(connection, "r")
    assert (await seconds_until_due(connection)).has_backfill is False
    await connection.execute(BACKFILL, [routine])
    assert (await seconds_until_due(connection)).has_backfill is True
    await Batches(Settings(), connection).expand()
    assert (await seconds_until_due(connection)).has_backfill is False
    await connection.execute(
        """UPDATE routines.backfills SET next_look_at = now() - interval '1 s', ended_at = now(),
                                         end_reason = 'cancelled'"""
    )
    assert (await seconds_until_due(connection)).has_backfill is False


async def test_ended_backfills_cost_a_ticker_nothing(connection: Connection) -> None:
    [routine] = await hourly(connection, "r")
    await connection.execute("ALTER TABLE routines.backfills DISABLE TRIGGER USER")
    await connection.execute(
        """INSERT INTO routines.backfills (collection_id, routine_id, from_time, until_time, made_by, ended_at,
                                           end_reason)
           SELECT 1, %s, '2026-05-04Z', '2026-05-05Z', 'key 1', now(), 'expanded' FROM generate_series(1, 20000)""",
        [routine],
    )
    await connection.execute("VACUUM ANALYZE routines.backfills")
    plan = await explained(connection, "tick.seconds_until_due", beyond_due=False, set_aside=None)
    assert buffers(plan) < 20
