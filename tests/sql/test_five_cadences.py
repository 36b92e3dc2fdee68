"""The five cadences of the contract's first part have the slots that they had before there were other types."""

from pathlib import Path

from routines_core.db import Connection

BEFORE = Path(__file__).parent / "before" / "five_cadences.sql"
CADENCES = """
    CREATE TABLE before.cadences AS
    SELECT (type, CASE WHEN type IN ('daily', 'weekdays', 'weekly') THEN hour END,
            CASE type WHEN 'manual' THEN 0 ELSE minute END,
            CASE type WHEN 'weekly' THEN day END)::before.cadence AS old
    FROM unnest('{manual,hourly,daily,weekdays,weekly}'::text[]) AS type, unnest('{0,9,23}'::int[]) AS hour,
         unnest('{0,30,59}'::int[]) AS minute, unnest('{mon,thu,sun}'::text[]) AS day"""
TIMES = """
    CREATE TABLE before.times AS
    SELECT '1970-01-01Z'::timestamptz + make_interval(secs => n * 26573.123456) AS time
    FROM generate_series(0, 299) AS n
    UNION ALL
    SELECT '2024-02-28 22:00Z'::timestamptz + make_interval(mins => n * 30) FROM generate_series(0, 399) AS n
    UNION ALL
    SELECT '1970-01-01Z'::timestamptz + make_interval(hours => n * 6571, mins => n % 61)
    FROM generate_series(0, 299) AS n"""
COMPARED = """
    SELECT count(*), count(*) FILTER (WHERE
        before.next_fire(old, time) IS DISTINCT FROM routines.next_fire(new, time)
        OR before.latest_slot(old, time) IS DISTINCT FROM routines.latest_slot(new, time)
        OR before.count_slots(old, before.latest_slot(old, time), before.latest_slot(old, later))
           IS DISTINCT FROM
           routines.count_slots(new, routines.latest_slot(new, time), routines.latest_slot(new, later)))
    FROM before.cadences, before.times,
         LATERAL (SELECT routines.cadence_from_json(to_jsonb(old)) AS new,
                         time + interval '400 days' AS later) AS same"""


async def test_their_slots_are_the_same_as_before(connection: Connection) -> None:
    for statement in (BEFORE.read_text("utf-8"), CADENCES, TIMES):
        await connection.execute(statement.encode())
    row = await (await connection.execute(COMPARED.encode())).fetchone()
    assert row == (135_000, 0)
