"""next_fire, latest_slot and count_slots agree with an oracle that walks the calendar by its rules, without a grid."""

from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from routines_core.db import Connection
from support.oracle import DAYS, Cadence, latest_slot, next_slot
from support.rows import at, with_database

BATCH = 40

hours, minutes = st.integers(0, 23), st.integers(0, 59)


def drawn(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Cadence]:
    """Draw cadences with these fields; the others keep their defaults."""
    return st.fixed_dictionaries(fields).map(lambda given: Cadence(**given))


cadences = st.one_of(
    drawn(type=st.just("manual")),
    drawn(type=st.just("hourly"), minute_utc=minutes),
    drawn(type=st.sampled_from(["daily", "weekdays"]), hour_utc=hours, minute_utc=minutes),
    drawn(type=st.just("weekly"), hour_utc=hours, minute_utc=minutes, day_of_week=st.sampled_from(DAYS)),
)
EDGES = """2024-02-28 23:59, 2024-02-29 00:00, 2025-02-28 23:59, 2026-12-31 23:59, 2027-01-01 00:00,
2000-02-29 12:00, 2100-02-28 23:59:59.999999, 1970-01-01 00:00, 1999-12-31 23:00,
2026-05-08 09:00, 2026-05-09 09:00, 2026-05-11 08:59:59"""
edges = st.sampled_from([at(text.strip()) for text in EDGES.split(",")])
times = st.one_of(
    edges,
    st.datetimes(datetime(1971, 1, 1), datetime(2199, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    st.datetimes(datetime(1971, 1, 1), datetime(2199, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001
        lambda time: time.replace(second=0, microsecond=0)
    ),
)


@settings(max_examples=12_000 // BATCH, deadline=None)
@given(st.lists(st.tuples(cadences, times), min_size=BATCH, max_size=BATCH))
def test_next_fire_and_latest_slot_agree_with_the_calendar(
    server_url: str, template: str, cases: list[tuple[Cadence, datetime]]
) -> None:
    with psycopg.connect(with_database(server_url, template), options="-c timezone=UTC") as connection:
        rows = connection.execute(
            """SELECT routines.next_fire(cadence, time), routines.latest_slot(cadence, time)
               FROM unnest(%s::jsonb[], %s::timestamptz[]) WITH ORDINALITY AS given (fields, time, position),
                    routines.cadence_from_json(fields) AS cadence
               ORDER BY position""",
            [[Jsonb(cadence._asdict()) for cadence, _ in cases], [at for _, at in cases]],
        ).fetchall()
    for (cadence, time), (next_fire, latest) in zip(cases, rows, strict=True):
        assert next_fire == next_slot(cadence, time), (cadence, time)
        assert latest == latest_slot(cadence, time), (cadence, time)


@pytest.mark.parametrize(
    "cadence",
    [
        Cadence("hourly", minute_utc=30),
        Cadence("daily", 9, 30),
        Cadence("weekdays", 9, 30),
        Cadence("weekly", 9, 30, day_of_week="wed"),
    ],
    ids=lambda cadence: cadence.type,
)
async def test_count_slots_agrees_with_repeated_next_fire(connection: Connection, cadence: Cadence) -> None:
    cursor = await connection.execute(
        """WITH RECURSIVE slots (slot, n) AS (
               SELECT routines.next_fire(routines.cadence_from_json(%(cadence)s), '2026-05-04 00:00Z'), 1
               UNION ALL
               SELECT routines.next_fire(routines.cadence_from_json(%(cadence)s), slot), n + 1
               FROM slots WHERE n < 40)
           SELECT n, routines.count_slots(routines.cadence_from_json(%(cadence)s),
                                          (SELECT min(slot) FROM slots), slot) FROM slots""",
        {"cadence": Jsonb(cadence._asdict())},
    )
    rows = await cursor.fetchall()
    assert len(rows) == 40
    assert all(n == counted for n, counted in rows)


async def test_next_fire_is_inlined(connection: Connection) -> None:
    """A function call per row would cost the tick a tenth of its speed."""
    cursor = await connection.execute(
        """EXPLAIN VERBOSE
           SELECT routines.next_fire(routines.cadence_of(routines), next_run_at),
                  routines.latest_slot(routines.cadence_of(routines), next_run_at) FROM routines.routines"""
    )
    plan = "\n".join(row[0] for row in await cursor.fetchall())
    assert "date_bin" in plan
    assert not [name for name in ("next_fire", "latest_slot", "cadence_of") if f"{name}(" in plan]


async def test_a_type_that_does_not_exist_has_no_slots(connection: Connection) -> None:
    for cadence in ({"type": "yearly"}, {"type": "yearly", "ends_at": "2030-01-01T00:00:00Z"}, {}):
        cursor = await connection.execute(
            """SELECT routines.next_fire(cadence, now()), routines.latest_slot(cadence, now()),
                      routines.count_slots(cadence, now(), now()), routines.slots_in_span(cadence, now(), now())
               FROM routines.cadence_from_json(%s) AS cadence""",
            [Jsonb(cadence)],
        )
        assert await cursor.fetchone() == (None, None, None, 1)
