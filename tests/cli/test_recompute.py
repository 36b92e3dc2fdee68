"""Slots that new time zone data has moved: `routines doctor` finds them, and `routines recompute` moves them on record.

The old data is played by windows and next slots that are an hour off.
"""

import pytest
from psycopg.types.json import Jsonb

from routines_core.db import Connection
from routines_core.db.ledger import why
from support.command import routines
from support.rows import Database, make_key, make_task, value

pytestmark = pytest.mark.slow

CADENCE = "routines.cadence_of(routines)"
SLOT = "next_run_at - coalesce(spread_offset, '0')"
AN_HOUR_OFF = """UPDATE routines.routines
                 SET next_run_at = next_run_at + interval '1 hour',
                     upcoming = ARRAY(SELECT slot + interval '1 hour' FROM unnest(upcoming) AS slot ORDER BY slot)
                 WHERE name = 'moved'"""


async def make(connection: Connection) -> None:
    await make_task(connection)
    for name, zone in (("moved", "Europe/Berlin"), ("set-by-hand", "Europe/Berlin"), ("utc", "UTC")):
        await connection.execute(
            """INSERT INTO routines.routines (collection_id, task_id, name, cadence_type, expression, timezone)
               VALUES (1, 1, %s, 'cron', %s, %s)""",
            [name, Jsonb("30 9 * * *"), zone],
        )
    await connection.execute("UPDATE routines.routines SET next_run_at = now() + '9 days' WHERE name = 'set-by-hand'")


async def test_nothing_is_moved_while_the_data_is_the_same(connection: Connection, database: Database) -> None:
    await make(connection)
    before = await value(connection, "SELECT array_agg(routines ORDER BY id)::text FROM routines.routines")
    assert "all coming slots are where" in routines(database, "doctor").stdout
    assert routines(database, "recompute").stdout == "moved the slots of 0 routines\n"
    assert await value(connection, "SELECT array_agg(routines ORDER BY id)::text FROM routines.routines") == before


@pytest.mark.parametrize("spread", [None, 3600])
async def test_doctor_finds_moved_slots_and_recompute_moves_them_on_record(
    connection: Connection, database: Database, spread: int | None
) -> None:
    await make(connection)
    await connection.execute("UPDATE routines.routines SET spread_seconds = %s", [spread])
    await connection.execute(AN_HOUR_OFF.encode())
    old = await value(connection, f"SELECT {SLOT} FROM routines.routines WHERE name = 'moved'")
    examined = routines(database, "doctor")
    assert examined.returncode == 1
    assert "newer time zone data moves slots of 1 routines, such as my-org/echo/moved" in examined.stdout
    done = routines(database, "recompute")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "moved the slots of 1 routines")
    true = f"SELECT {SLOT} = routines.next_fire({CADENCE}, now()) FROM routines.routines WHERE name = 'moved'"
    assert await value(connection, true) is True
    moved = "SELECT moved_from = %s AND moved_to = moved_from - interval '1 hour' FROM routines.slot_moves"
    assert await value(connection, moved, old) is True
    assert "all coming slots are where" in routines(database, "doctor").stdout
    assert await value(connection, "SELECT next_run_at > now() + '8 days' FROM routines.routines WHERE id = 2") is True
    assert await value(connection, "SELECT count(*) FROM routines.skips") == 0
    key_id = int((await make_key(connection, "my-org")).split("_")[1])
    sentence = (await why(connection, key_id=key_id, routine_id=1, at=old)).sentence  # type: ignore[arg-type]
    assert sentence.startswith("No slot: it was moved to 20")
    assert "since the rules of Europe/Berlin have changed; recorded 20" in sentence
