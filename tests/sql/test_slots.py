"""What a run knows of its slot: the values of references such as slot.date."""

from typing import Any

import pytest
from psycopg.errors import CheckViolation

from routines_core.db import Connection
from routines_workflow.references import SLOT_NAMES
from support.rows import at, make_routine, make_task, value

MONDAY = at("2026-05-04 09:00")
ONE_OF = (
    "init_params_from_slot.text: must be slot.scheduled_for, slot.date, slot.local_time, slot.previous, "
    "slot.last_success or slot.trigger"
)
SET_CADENCE = """UPDATE routines.routines SET (cadence_type, hour_utc, expression, timezone, starts_at) = (
                     SELECT type, hour_utc, expression, timezone, %s::timestamptz
                     FROM routines.cadence_from_json(%s::jsonb)) WHERE id = %s"""
RUN = """INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, trigger,
                                            scheduled_for, init_params, status, ended_at)
         SELECT collection_id, task_id, 1, id, CASE WHEN %s::timestamptz IS NULL THEN 'run-now' ELSE 'schedule' END, %s,
                '{}', %s, now() FROM routines.routines WHERE id = %s"""

FILL = """WITH asked AS (
              INSERT INTO routines.backfills (collection_id, routine_id, from_time, until_time, made_by)
              SELECT collection_id, id, %(slot)s, %(slot)s::timestamptz + interval '1 minute', 'key 1'
              FROM routines.routines WHERE id = %(routine)s RETURNING id)
          INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, trigger,
                                             backfill_id, fills_slot, init_params, status, ended_at)
          SELECT collection_id, task_id, 1, routines.id, 'backfill', asked.id, %(slot)s, '{}', %(status)s, now()
          FROM routines.routines, asked WHERE routines.id = %(routine)s"""


@pytest.fixture
async def routine(connection: Connection) -> int:
    """A routine that is due daily at 09:00."""
    return await make_routine(connection, await make_task(connection), MONDAY)


async def values_of(connection: Connection, routine: int, slot: object, trigger: str = "schedule") -> Any:
    return await value(connection, "SELECT routines.slot_values(%s, %s, %s)", routine, slot, trigger)


async def ended(connection: Connection, routine: int, slot: str | None, status: str) -> None:
    when = None if slot is None else at(slot)
    await connection.execute(RUN, [when, when, status, routine])


async def filled(connection: Connection, routine: int, slot: str, status: str) -> None:
    await connection.execute(FILL, {"slot": at(slot), "status": status, "routine": routine})


async def test_a_slot_of_a_fixed_cadence_is_shown_in_utc(connection: Connection, routine: int) -> None:
    assert await values_of(connection, routine, MONDAY) == {
        "scheduled_for": "2026-05-04T09:00:00Z",
        "date": "2026-05-04",
        "local_time": "2026-05-04T09:00:00+00:00",
        "previous": "2026-05-03T09:00:00Z",
        "last_success": None,
        "trigger": "schedule",
    }


@pytest.mark.parametrize(
    ("slot", "date", "local_time", "previous"),
    [
        # Midnight in Berlin is the day before in UTC.
        ("2026-05-03 22:30", "2026-05-04", "2026-05-04T00:30:00+02:00", "2026-05-02T22:30:00Z"),
        # Clocks were set forward in the night before, at 02:00.
        ("2026-03-29 22:30", "2026-03-30", "2026-03-30T00:30:00+02:00", "2026-03-28T23:30:00Z"),
    ],
)
async def test_dates_and_local_times_are_those_of_the_cadences_time_zone(
    connection: Connection, routine: int, slot: str, date: str, local_time: str, previous: str
) -> None:
    cadence = '{"type": "cron", "expression": "30 0 * * *", "timezone": "Europe/Berlin"}'
    await connection.execute(SET_CADENCE, [None, cadence, routine])
    found = await values_of(connection, routine, at(slot))
    assert (found["date"], found["local_time"], found["previous"]) == (date, local_time, previous)


async def test_the_first_slot_has_none_before_it(connection: Connection, routine: int) -> None:
    await connection.execute(SET_CADENCE, [MONDAY, '{"type": "daily", "hour_utc": 9}', routine])
    assert (await values_of(connection, routine, MONDAY))["previous"] is None
    assert (await values_of(connection, routine, at("2026-05-05 09:00")))["previous"] == "2026-05-04T09:00:00Z"


async def test_the_last_success_is_the_newest_completed_scheduled_run_before_the_slot(
    connection: Connection, routine: int
) -> None:
    await ended(connection, routine, "2026-05-01 09:00", "completed")
    await ended(connection, routine, "2026-05-02 09:00", "completed")
    await ended(connection, routine, "2026-05-03 09:00", "failed")
    await ended(connection, routine, "2026-05-05 09:00", "completed")
    await ended(connection, routine, None, "completed")
    assert (await values_of(connection, routine, MONDAY))["last_success"] == "2026-05-02T09:00:00Z"
    assert (await values_of(connection, routine, at("2026-05-02 09:00")))["last_success"] == "2026-05-01T09:00:00Z"


async def test_a_slot_that_a_backfill_has_filled_is_a_success(connection: Connection, routine: int) -> None:
    await ended(connection, routine, "2026-05-01 09:00", "completed")
    await filled(connection, routine, "2026-05-02 09:00", "completed")
    await filled(connection, routine, "2026-05-03 09:00", "failed")
    assert (await values_of(connection, routine, MONDAY))["last_success"] == "2026-05-02T09:00:00Z"
    assert (await values_of(connection, routine, at("2026-05-02 09:00")))["last_success"] == "2026-05-01T09:00:00Z"


async def test_a_run_for_no_slot_knows_the_last_success_and_its_trigger(connection: Connection, routine: int) -> None:
    await ended(connection, routine, "2026-05-05 09:00", "completed")
    nothing = dict.fromkeys(("scheduled_for", "date", "local_time", "previous"))
    assert await values_of(connection, routine, None, "run-now") == {
        **nothing,
        "last_success": "2026-05-05T09:00:00Z",
        "trigger": "run-now",
    }


async def test_a_run_of_a_deleted_routine_has_no_date_rather_than_a_wrong_one(
    connection: Connection, routine: int
) -> None:
    await connection.execute("DELETE FROM routines.routines WHERE id = %s", [routine])
    found = await values_of(connection, routine, MONDAY)
    assert found["scheduled_for"] == "2026-05-04T09:00:00Z"
    assert (found["date"], found["local_time"], found["previous"]) == (None, None, None)


async def test_the_last_success_is_sought_from_the_newest_run_on(connection: Connection, routine: int) -> None:
    await connection.execute(
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, trigger,
                                              scheduled_for, init_params, status, ended_at)
           SELECT collection_id, task_id, 1, routines.id, 'schedule', %s::timestamptz - day * interval '1 day', '{}',
                  CASE WHEN day = 3 THEN 'completed' ELSE 'failed' END, now()
           FROM routines.routines, generate_series(1, 3000) AS day WHERE routines.id = %s""",
        [MONDAY, routine],
    )
    await connection.execute("ANALYZE routines.trajectories")
    cursor = await connection.execute(
        "EXPLAIN (ANALYZE, FORMAT JSON) SELECT scheduled_for FROM ("
        "SELECT scheduled_for, status FROM routines.trajectories WHERE triggered_by_routine_id = %s "
        "AND scheduled_for < %s ORDER BY scheduled_for DESC LIMIT 1000) AS newest "
        "WHERE status = 'completed' ORDER BY scheduled_for DESC LIMIT 1",
        [routine, MONDAY],
    )
    row = await cursor.fetchone()
    assert row
    scan = row[0][0]["Plan"]
    while "Plans" in scan:
        scan = scan["Plans"][0]
    assert (scan["Index Name"], scan["Actual Rows"]) == ("trajectories_slot_key", 3)
    assert (await values_of(connection, routine, MONDAY))["last_success"] == "2026-05-01T09:00:00Z"
    await connection.execute("UPDATE routines.trajectories SET status = 'archived' WHERE status = 'completed'")
    assert (await values_of(connection, routine, MONDAY))["last_success"] is None


@pytest.mark.parametrize(
    ("taken", "message"),
    [
        ("[]", "init_params_from_slot: must be an object of parameters and references such as slot.date"),
        ('"slot.date"', "init_params_from_slot: must be an object of parameters and references such as slot.date"),
        (
            '{"text": "slot.foo"}',
            ONE_OF,
        ),
        (
            '{"text": ["slot.date"]}',
            ONE_OF,
        ),
        ('{"nope": "slot.date"}', "init_params_from_slot.nope: the task declares no such parameter"),
    ],
)
async def test_parameters_that_cannot_be_taken_are_refused_at_psql_too(
    connection: Connection, routine: int, taken: str, message: str
) -> None:
    with pytest.raises(CheckViolation) as refused:
        await connection.execute("UPDATE routines.routines SET init_params_from_slot = %s", [taken])
    assert refused.value.diag.message_primary == message
    with pytest.raises(CheckViolation):
        await connection.execute(
            """INSERT INTO routines.routines (collection_id, task_id, name, cadence_type, init_params_from_slot)
               SELECT collection_id, task_id, 'other', 'manual', %s FROM routines.routines WHERE id = %s""",
            [taken, routine],
        )


async def test_more_parameters_than_fifty_are_refused(connection: Connection, routine: int) -> None:
    with pytest.raises(CheckViolation, match="at most 50 parameters"):
        await connection.execute(
            """UPDATE routines.routines SET init_params_from_slot = (
                   SELECT jsonb_object_agg(n, 'slot.date') FROM generate_series(1, 51) AS n) WHERE id = %s""",
            [routine],
        )


@pytest.mark.parametrize("name", SLOT_NAMES)
async def test_everything_that_a_workflow_may_name_can_be_taken(
    connection: Connection, routine: int, name: str
) -> None:
    await connection.execute(
        "UPDATE routines.routines SET init_params_from_slot = jsonb_build_object('text', %s::text)", [f"slot.{name}"]
    )
    assert name in await values_of(connection, routine, MONDAY)
    assert len(await values_of(connection, routine, MONDAY)) == len(SLOT_NAMES)


async def test_no_parameters_are_none(connection: Connection, routine: int) -> None:
    await connection.execute("UPDATE routines.routines SET init_params_from_slot = '{}' WHERE id = %s", [routine])
    assert await value(connection, "SELECT init_params_from_slot FROM routines.routines") is None
