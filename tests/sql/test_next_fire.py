"""next_fire, latest_slot and count_slots agree with an oracle that walks the calendar by its rules, without a grid."""

from datetime import UTC, datetime

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routines_core.db import Connection
from support.oracle import DAYS, Cadence, latest_slot, next_slot
from support.rows import at, with_database

BATCH = 40

cadences = st.one_of(
    st.tuples(st.just("manual"), st.none(), st.just(0), st.none()),
    st.tuples(st.just("hourly"), st.none(), st.integers(0, 59), st.none()),
    st.tuples(st.sampled_from(["daily", "weekdays"]), st.integers(0, 23), st.integers(0, 59), st.none()),
    st.tuples(st.just("weekly"), st.integers(0, 23), st.integers(0, 59), st.sampled_from(DAYS)),
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
            """SELECT routines.next_fire(cadence, at), routines.latest_slot(cadence, at)
               FROM unnest(%s::text[], %s::int[], %s::int[], %s::text[], %s::timestamptz[]) WITH ORDINALITY
                    AS given (kind, hour, minute, day, at, position),
                    LATERAL (SELECT ROW(kind, hour, minute, day)::routines.cadence AS cadence) AS whole
               ORDER BY position""",
            [
                *(list(column) for column in zip(*(cadence for cadence, _ in cases), strict=True)),
                [at for _, at in cases],
            ],
        ).fetchall()
    for (cadence, time), (next_fire, latest) in zip(cases, rows, strict=True):
        assert next_fire == next_slot(cadence, time), (cadence, time)
        assert latest == latest_slot(cadence, time), (cadence, time)


@pytest.mark.parametrize(("kind", "day"), [("hourly", None), ("daily", None), ("weekdays", None), ("weekly", "wed")])
async def test_count_slots_agrees_with_repeated_next_fire(connection: Connection, kind: str, day: str | None) -> None:
    hour = None if kind == "hourly" else 9
    cursor = await connection.execute(
        """WITH RECURSIVE slots (slot, n) AS (
               SELECT routines.next_fire(ROW(%(kind)s, %(hour)s, 30, %(day)s)::routines.cadence, '2026-05-04 00:00Z'), 1
               UNION ALL
               SELECT routines.next_fire(ROW(%(kind)s, %(hour)s, 30, %(day)s)::routines.cadence, slot), n + 1
               FROM slots WHERE n < 40)
           SELECT n, routines.count_slots(ROW(%(kind)s, %(hour)s, 30, %(day)s)::routines.cadence,
                                          (SELECT min(slot) FROM slots), slot) FROM slots""",
        {"kind": kind, "hour": hour, "day": day},
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
