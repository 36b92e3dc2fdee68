"""A routine whose fire fails does not affect the others; the third strike pauses it with the reason."""

import asyncio
from datetime import datetime, timedelta

import pytest

from routines_core.db import Connection, connect
from routines_core.db import tick as db
from routines_core.db.pool import LOST
from routines_core.db.tick import Tick, tick
from routines_core.settings import Settings
from routines_ticker.batches import Batches
from support.rows import CATCHUP, Database, at, ledger, make_routine, make_task, value

DUE = at("2026-05-04 09:00")
EVER = Settings(catchup_seconds=10 * 365 * 86400, hourly_catchup_seconds=10 * 365 * 86400)


async def poison(connection: Connection, *routine_ids: int, table: str = "trajectories", how: str = "") -> None:
    """Make inserts into `table` raise for these routines."""
    column = "triggered_by_routine_id" if table == "trajectories" else "routine_id"
    how = how or "RAISE EXCEPTION ''poison'';"
    await connection.execute(
        f"""CREATE OR REPLACE FUNCTION poison_{table}() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN IF NEW.{column} = ANY (ARRAY{list(routine_ids)}::bigint[]) THEN {how} END IF; RETURN NEW; END'"""
    )
    await connection.execute(
        f"""CREATE TRIGGER poison BEFORE INSERT ON routines.{table}
            FOR EACH ROW EXECUTE FUNCTION poison_{table}()"""
    )


async def many(connection: Connection, task: int, count: int) -> None:
    await connection.execute(
        """INSERT INTO routines.routines (collection_id, task_id, name, cadence_type)
           SELECT collection_id, id, 'r' || n, 'hourly' FROM routines.tasks, generate_series(1, %s) n WHERE id = %s""",
        [count, task],
    )
    await connection.execute("UPDATE routines.routines SET next_run_at = date_trunc('hour', now())")


class Counting(Batches):
    """Batches that count their statements."""

    statements = 0

    async def _tick(self, *arguments: object, **named: object) -> Tick:
        self.statements += 1
        return await super()._tick(*arguments, **named)  # type: ignore[arg-type]


async def strikes(connection: Connection, routine: int) -> object:
    return await value(connection, "SELECT strikes FROM routines.routines WHERE id = %s", routine)


async def test_a_routine_whose_fire_raises_costs_the_others_nothing_and_gets_a_strike(connection: Connection) -> None:
    task = await make_task(connection)
    bad = await make_routine(connection, task, DUE, name="bad")
    good = await make_routine(connection, task, DUE, name="good")
    await poison(connection, bad)
    await Batches(EVER, connection).tick()
    assert (await ledger(connection, good))[-1][2] == "started"
    assert (await ledger(connection, bad))[-1][3] == "failed_to_start"
    assert await value(connection, "SELECT detail FROM routines.skips WHERE reason = 'failed_to_start'") == "poison"
    assert (await strikes(connection, bad), await strikes(connection, good)) == (1, 0)


async def test_one_bad_routine_among_a_thousand_is_found_in_about_twenty_statements(connection: Connection) -> None:
    await many(connection, await make_task(connection), 1000)
    bad = 617
    await poison(connection, bad)
    batches = Counting(EVER, connection)
    assert await batches.tick() == 1000
    assert await value(connection, "SELECT count(*) FROM routines.trajectories") == 999
    assert await value(connection, "SELECT array_agg(routine_id) FROM routines.skips") == [bad]
    assert batches.statements <= 1 + 1 + 2 * 10 + 1 + 1


async def test_a_statement_that_takes_too_long_for_one_routine_is_that_routines_fault(database: Database) -> None:
    async with connect(database.url, "ticker", statement_timeout="300ms") as own:
        task = await make_task(own)
        bad = await make_routine(own, task, DUE, name="bad")
        good = await make_routine(own, task, DUE, name="good")
        await poison(own, bad, how="PERFORM pg_sleep(60);")
        await Batches(EVER, own).tick()
        assert (await ledger(own, good))[-1][2] == "started"
        assert (await ledger(own, bad))[-1][3] == "failed_to_start"


async def test_a_fire_that_meets_somebodys_lock_is_set_aside_without_a_strike(
    connection: Connection, database: Database
) -> None:
    """The lock is an uncommitted scheduled run of the same routine, inserted in psql."""
    task = await make_task(connection)
    held = await make_routine(connection, task, DUE, name="held")
    free = await make_routine(connection, task, DUE, name="free")
    async with connect(database.url, "psql", idle_in_transaction_session_timeout="0") as psql:
        async with psql.transaction(force_rollback=True):
            await psql.execute(
                """INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id,
                                                      scheduled_for, trigger, init_params)
                   SELECT collection_id, task_id, 1, id, '2026-01-01', 'schedule', '{}'
                   FROM routines.routines WHERE id = %s""",
                [held],
            )
            await connection.execute("SET lock_timeout = '100ms'")
            batches = Batches(EVER, connection)
            await batches.tick()
            assert (await ledger(connection, free))[-1][2] == "started"
            assert batches.set_aside() == [held]
            assert (await db.seconds_until_due(connection, set_aside=batches.set_aside())).seconds > 0
        assert await ledger(connection, held) == []
        await Batches(EVER, connection).tick()
    assert (await ledger(connection, held))[-1][2] == "started"
    assert await strikes(connection, held) == 0


async def test_a_routine_whose_strike_cannot_be_recorded_is_set_aside_and_stays_due(connection: Connection) -> None:
    task = await make_task(connection)
    bad = await make_routine(connection, task, DUE, name="bad")
    good = await make_routine(connection, task, DUE, name="good")
    await poison(connection, bad)
    await poison(connection, bad, table="skips")
    batches = Batches(EVER, connection)
    await batches.tick()
    assert batches.set_aside() == [bad]
    assert (await ledger(connection, good))[-1][2] == "started"
    assert await batches.tick() == 0
    assert await value(connection, "SELECT next_run_at FROM routines.routines WHERE id = %s", bad) == DUE


async def test_a_statement_at_odds_with_the_schema_is_no_routines_fault(connection: Connection) -> None:
    routine = await make_routine(connection, await make_task(connection), DUE)
    await connection.execute("ALTER TABLE routines.trajectories RENAME COLUMN webhook_url TO webhook")
    with pytest.raises(LOST):
        await Batches(EVER, connection).tick()
    assert (await strikes(connection, routine), await ledger(connection, routine)) == (0, [])


async def test_a_database_that_became_read_only_is_no_routines_fault(connection: Connection) -> None:
    routine = await make_routine(connection, await make_task(connection), DUE)
    await connection.execute("SET default_transaction_read_only = on")
    with pytest.raises(LOST):
        await Batches(EVER, connection).tick()
    await connection.execute("SET default_transaction_read_only = off")
    assert (await strikes(connection, routine), await ledger(connection, routine)) == (0, [])


async def test_a_missing_task_version_fails_to_start_and_names_the_cause(connection: Connection) -> None:
    task = await make_task(connection)
    routine = await make_routine(connection, task, DUE)
    await connection.execute("DELETE FROM routines.task_versions")
    result = await tick(connection, batch_size=10, now=DUE, **CATCHUP)
    assert (result.fired, result.advanced, result.struck_ids) == (0, 1, [routine])
    assert await ledger(connection, routine) == [(DUE, 1, "skipped", "failed_to_start")]
    assert await value(connection, "SELECT detail FROM routines.skips") == "the task or its current version is gone"


async def test_oversized_parameters_fail_to_start_without_affecting_others(connection: Connection) -> None:
    task = await make_task(connection)
    big = await make_routine(connection, task, DUE, name="big")
    small = await make_routine(connection, task, DUE, name="small")
    await connection.execute(
        """UPDATE routines.routines SET init_params_overrides = jsonb_build_object('text', repeat('x', 3000))
           WHERE id = %s""",
        [big],
    )
    await connection.execute("UPDATE routines.routines SET next_run_at = %s", [DUE])
    result = await tick(connection, batch_size=10, now=DUE, max_init_params_bytes=2048, **CATCHUP)
    assert (result.fired, result.struck_ids) == (1, [big])
    assert (await ledger(connection, small))[-1][2] == "started"
    detail = str(await value(connection, "SELECT detail FROM routines.skips"))
    assert detail.startswith("init_params take 30") and detail.endswith("bytes, the limit is 2048")  # noqa: PT018


async def strike(connection: Connection, slot: datetime) -> Tick:
    return await tick(connection, batch_size=10, now=slot, fault="poison", **CATCHUP)


async def test_the_third_strike_in_a_row_pauses_the_routine_and_accounts_for_its_slot(connection: Connection) -> None:
    routine = await make_routine(connection, await make_task(connection), DUE)
    done = [await strike(connection, DUE + timedelta(days=day)) for day in range(3)]
    assert [tick.paused_ids for tick in done] == [[], [], [routine]]
    assert await ledger(connection, routine) == [
        (DUE + timedelta(days=day), 1, "skipped", "failed_to_start") for day in range(3)
    ]
    reason = await value(connection, "SELECT paused_reason FROM routines.routines WHERE paused")
    assert reason == "paused after 3 fires in a row that failed to start; the last: poison"
    assert await value(connection, "SELECT next_run_at FROM routines.routines") is None


async def test_a_successful_fire_resets_the_strikes_and_an_overlap_does_not(connection: Connection) -> None:
    routine = await make_routine(connection, await make_task(connection), DUE)
    await tick(connection, batch_size=10, now=DUE, **CATCHUP)
    await connection.execute("UPDATE routines.routines SET strikes = 2")
    await tick(connection, batch_size=10, now=DUE + timedelta(days=1), **CATCHUP)
    assert (await ledger(connection, routine))[-1][3] == "overlap"
    assert await strikes(connection, routine) == 2
    await connection.execute("UPDATE routines.trajectories SET status = 'completed', ended_at = now()")
    await tick(connection, batch_size=10, now=DUE + timedelta(days=2), **CATCHUP)
    assert (await ledger(connection, routine))[-1][2] == "started"
    assert await strikes(connection, routine) == 0


async def test_a_strike_for_a_slot_settled_in_the_meantime_is_ignored(connection: Connection) -> None:
    """This happens if a ticker freezes between the failed fire and its strike."""
    routine = await make_routine(connection, await make_task(connection), DUE)
    [seen] = await db.due(connection, batch_size=10, now=DUE)
    await tick(connection, batch_size=10, now=DUE, **CATCHUP)
    tomorrow = DUE + timedelta(days=1)
    late = await tick(connection, batch_size=10, now=tomorrow, only=[seen], fault="poison", **CATCHUP)
    assert (late.claimed, await strikes(connection, routine)) == (0, 0)


async def test_four_tickers_that_meet_the_same_bad_routine_strike_it_once_for_the_slot(
    connection: Connection, database: Database
) -> None:
    await many(connection, await make_task(connection), 40)
    await poison(connection, 7, 23)

    async def one_ticker() -> None:
        async with connect(database.url, "ticker") as own:
            await Batches(EVER, own).tick()

    await asyncio.gather(*(one_ticker() for _ in range(4)))
    assert await value(
        connection, "SELECT array_agg(strikes ORDER BY id) FROM routines.routines WHERE id IN (7, 23)"
    ) == [1, 1]
    assert await value(connection, "SELECT count(*) FROM routines.skips") == 2
    assert await value(connection, "SELECT count(*) FROM routines.trajectories") == 38
