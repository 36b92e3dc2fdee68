"""A cadence type with a field of its own changes two chapters, and nothing in the tick, the ledger or `why`.

docs/architecture.md, "How to add a cadence", promises that. Here `monthly` is added to the text of chapters 03 and 04
only. Every other chapter, and the statements of sql/queries/tick.sql and sql/queries/ledger.sql, are the product's own.
"""

from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg.types.json import Jsonb

from routines_core.db import Connection, connect
from routines_core.db.ledger import next_slots, why
from routines_core.db.tick import tick
from support.rows import CATCHUP, at, ledger, make_key, make_task, value
from support.schema_book import apply, chapters, empty_database

FIRST, SECOND, THIRD = at("2027-01-31 09:00"), at("2027-02-28 09:00"), at("2027-03-31 09:00")
FOURTH, FIFTH = at("2027-04-30 09:00"), at("2027-05-31 09:00")
MONTH_OF_YEAR = """
-- January has 31 days, and adding months to a timestamp stops at the last day of a shorter month.
CREATE FUNCTION routines.slot_of_month(cadence routines.cadence, month integer)
RETURNS timestamp LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN timestamp '0001-01-01' + make_interval(
    days => (cadence).day_of_month - 1, hours => (cadence).hour_utc, mins => (cadence).minute_utc)
    + make_interval(months => month);
CREATE FUNCTION routines.month_number(at timestamp) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (extract(year FROM at) * 12 + extract(month FROM at))::integer - 13;

"""
NEXT_FIRE = """
    WHEN 'monthly' THEN CASE
        WHEN routines.slot_of_month(cadence, routines.month_number(after AT TIME ZONE 'UTC')) > after AT TIME ZONE 'UTC'
        THEN routines.slot_of_month(cadence, routines.month_number(after AT TIME ZONE 'UTC'))
        ELSE routines.slot_of_month(cadence, routines.month_number(after AT TIME ZONE 'UTC') + 1) END"""
LATEST_SLOT = """
    WHEN 'monthly' THEN CASE
        WHEN routines.slot_of_month(cadence, routines.month_number(until AT TIME ZONE 'UTC'))
             <= until AT TIME ZONE 'UTC'
        THEN routines.slot_of_month(cadence, routines.month_number(until AT TIME ZONE 'UTC'))
        ELSE routines.slot_of_month(cadence, routines.month_number(until AT TIME ZONE 'UTC') - 1) END"""
COUNT_SLOTS = """
    WHEN 'monthly' THEN routines.month_number(last_slot AT TIME ZONE 'UTC')
                      - routines.month_number(first_slot AT TIME ZONE 'UTC')"""
COLUMN = """    day_of_month smallint CHECK (day_of_month BETWEEN 1 AND 31),
    CHECK ((day_of_month IS NOT NULL) = (cadence_type = 'monthly')),
"""
UNBOUNDED = "CASE CASE WHEN (cadence).starts_at IS NULL AND (cadence).ends_at IS NULL THEN (cadence).type END"
BODY = f"RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE\nRETURN {UNBOUNDED}"
ADDITIONS: dict[str, list[tuple[str, str]]] = {
    "03_cadence.sql": [
        ("    ends_at       timestamptz", ",\n    day_of_month  integer"),
        (f"next_fire(cadence routines.cadence, after timestamptz)\n{BODY}", NEXT_FIRE),
        (f"latest_slot(cadence routines.cadence, until timestamptz)\n{BODY}", LATEST_SLOT),
        (f"RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE\nRETURN 1 + {UNBOUNDED}", COUNT_SLOTS),
        ("coalesce(' on ' || (cadence).day_of_week", ", ' on day ' || (cadence).day_of_month"),
        ("to_jsonb() is the inverse.';\n", MONTH_OF_YEAR),
    ],
    "04_routines.sql": [
        (
            "CHECK (cadence_type IN ('manual', 'hourly', 'daily', 'weekdays', 'weekly', 'cron', 'interval', 'once'",
            ", 'monthly'",
        ),
        ("fits_cadence CHECK (cadence_type IN ('hourly', 'daily', 'weekdays', 'weekly'", ", 'monthly'"),
        ("CHECK ((hour_utc IS NOT NULL) = (cadence_type IN ('daily', 'weekdays', 'weekly'", ", 'monthly'"),
        ("CHECK (day_of_week IN ('mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun')),\n", COLUMN),
        ("(routine).starts_at,\n           (routine).ends_at", ", (routine).day_of_month"),
        ("once_at, starts_at, ends_at", ", day_of_month"),
    ],
    "04_settled_slots.sql": [
        ("BEFORE UPDATE OF cadence_type, hour_utc, minute_utc, day_of_week", ", day_of_month"),
    ],
}
"""What is added to each chapter: after which text, and what."""


def with_monthly(chapter: Path) -> str:
    text = chapter.read_text("utf-8")
    for place, addition in ADDITIONS.get(chapter.name, []):
        assert text.count(place) == 1, (chapter.name, place)
        text = text.replace(place, place + addition)
    return text


@pytest.fixture
async def monthly(server_url: str) -> AsyncGenerator[Connection]:
    """A database whose schema knows one more type of cadence, with a task and a routine due on the 31st at 09:00."""
    with empty_database(server_url) as database:
        async with connect(database.url, "monthly") as connection:
            await apply(connection, map(with_monthly, chapters()))
            await make_task(connection)
            await connection.execute(
                """INSERT INTO routines.routines (collection_id, task_id, name, cadence_type, hour_utc, day_of_month)
                   VALUES (1, 1, 'monthly', 'monthly', 9, 31)"""
            )
            await connection.execute(
                "UPDATE routines.routines SET created_at = %s, next_run_at = %s", [FIRST - timedelta(days=1), FIRST]
            )
            yield connection


async def test_the_database_computes_its_slots_and_refuses_it_without_its_field(monthly: Connection) -> None:
    cadence = "routines.cadence_of(routines)"
    slots = f"SELECT array(SELECT routines.next_slots({cadence}, %s, 4)) FROM routines.routines"
    assert await value(monthly, slots, FIRST) == [SECOND, THIRD, FOURTH, FIFTH]
    words = f"SELECT routines.cadence_in_words({cadence}) FROM routines.routines"
    assert await value(monthly, words) == "monthly on day 31 at 09:00"
    with pytest.raises(psycopg.errors.CheckViolation):
        await monthly.execute("UPDATE routines.routines SET day_of_month = NULL")


async def test_the_tick_fires_it_catches_it_up_and_stores_its_cadence_with_the_span(monthly: Connection) -> None:
    assert (await tick(monthly, batch_size=10, now=FIRST, **CATCHUP)).fired == 1
    await monthly.execute("UPDATE routines.trajectories SET status = 'completed', ended_at = now()")
    late = await tick(monthly, batch_size=10, now=FIFTH + timedelta(hours=1), **CATCHUP)
    assert (late.fired, late.missed) == (1, 3)
    assert await ledger(monthly, 1) == [
        (FIRST, 1, "started", None),
        (SECOND, 3, "skipped", "missed"),
        (FIFTH, 1, "started", None),
    ]
    assert await value(monthly, "SELECT (cadence).day_of_month FROM routines.skips") == 31


async def test_why_tells_the_slots_of_its_span_from_other_days(monthly: Connection) -> None:
    """The last slot of the span, on the 30th of April, does not say that the slot of March is on the 31st."""
    now = FIFTH + timedelta(hours=1)
    key_id = int((await make_key(monthly, "my-org")).split("_")[1])
    await tick(monthly, batch_size=10, now=now, **CATCHUP)
    slot = await why(monthly, key_id=key_id, routine_id=1, at=THIRD, now=now)
    assert (slot.kind, slot.slot_count) == ("missed", 4)
    other = await why(monthly, key_id=key_id, routine_id=1, at=THIRD - timedelta(days=1), now=now)
    assert (other.kind, other.next_slot) == ("not_a_slot", THIRD)
    assert (await next_slots(monthly, key_id=key_id, routine_id=1, after=FIFTH, count=1)) == [at("2027-06-30 09:00")]


async def test_a_change_of_its_field_settles_the_slots_that_were_due(monthly: Connection) -> None:
    await monthly.execute(
        "UPDATE routines.routines SET created_at = '2026-01-30 00:00Z', next_run_at = '2026-01-31 09:00Z'"
    )
    await monthly.execute("UPDATE routines.routines SET day_of_month = 15")
    span = "SELECT cadence = routines.cadence_from_json(%s) FROM routines.skips"
    before = Jsonb({"type": "monthly", "hour_utc": 9, "minute_utc": 0, "day_of_month": 31})
    assert await value(monthly, span, before) is True
    assert await value(monthly, "SELECT extract(day FROM next_run_at AT TIME ZONE 'UTC') FROM routines.routines") == 15
