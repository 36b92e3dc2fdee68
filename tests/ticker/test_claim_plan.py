"""The plan of the tick: what it reads depends on what is due, and not on how many routines there are."""

import re

import pytest

from routines_core.db import Connection
from routines_core.db.routines import Cadence
from routines_core.db.statements import Statement
from support.plans import Plan, buffers, explained, explained_once, nodes, planned_once
from support.rows import make_task
from support.sampling import left_out
from support.stepping import TICK

BATCH = 1000


async def fill(connection: Connection, first: int, last: int) -> None:
    """Hourly routines with ids from first to last, the newest `2 * BATCH` of them due, without triggers."""
    await connection.execute("ALTER TABLE routines.routines DISABLE TRIGGER USER")
    await connection.execute("UPDATE routines.routines SET next_run_at = now() + interval '10 minutes'")
    await connection.execute(
        """INSERT INTO routines.routines (collection_id, task_id, name, cadence_type, minute_utc, next_run_at)
           SELECT 1, 1, 'r' || n, 'hourly', mod(n, 60),
                  CASE WHEN n > %(last)s - 2 * %(batch)s THEN date_trunc('minute', now())
                       ELSE now() + mod(n, 3600) * interval '1 second' + interval '1 minute' END
           FROM generate_series(%(first)s, %(last)s::int) n""",
        {"first": first, "last": last, "batch": BATCH},
    )
    await connection.execute("ALTER TABLE routines.routines ENABLE TRIGGER USER")
    await connection.execute("VACUUM (ANALYZE) routines.routines")


def assert_the_claim_reads_the_head_of_its_index(tick: Plan) -> None:
    [claimed] = [node for node in nodes(tick) if node.get("Subplan Name") == "CTE claimed"]
    assert [node["Node Type"] for node in nodes(claimed)] == ["Limit", "LockRows", "Index Scan"]
    [scan] = [node for node in nodes(claimed) if node["Node Type"] == "Index Scan"]
    assert scan["Index Name"] == "routines_next_run_at_idx"
    assert scan["Actual Rows"] == BATCH
    assert scan.get("Rows Removed by Filter", 0) == 0


def assert_no_table_that_grows_is_read_whole(plan: Plan) -> None:
    read_whole = {node["Relation Name"] for node in nodes(plan) if node["Node Type"] == "Seq Scan"}
    assert not read_whole & {"routines", "trajectories", "skips"}
    scans = [node for node in nodes(plan) if node.get("Relation Name") == "routines" and "Scan" in node["Node Type"]]
    assert max(node["Actual Rows"] * node["Actual Loops"] for node in scans) <= BATCH


@left_out
@pytest.mark.slow
async def test_at_a_million_routines_a_tick_and_an_idle_probe_read_what_they_read_at_ten_thousand(
    connection: Connection,
) -> None:
    """The tick's plan was made while the tables were empty."""
    names = await planned_once(connection, BATCH)
    await make_task(connection)
    read: dict[int, tuple[int, int]] = {}
    done = 0
    for count in (10_000, 1_000_000):
        await fill(connection, done + 1, count)
        done = count
        tick = await explained_once(connection, names, **TICK, now=None)
        assert_the_claim_reads_the_head_of_its_index(tick)
        probe = await explained(connection, "tick.seconds_until_due", set_aside=None, beyond_due=False)
        read[count] = buffers(tick), buffers(probe)
        await connection.execute("TRUNCATE routines.trajectories CASCADE")
    assert_no_table_that_grows_is_read_whole(tick)
    assert_no_table_that_grows_is_read_whole(probe)
    assert read[1_000_000][0] < 1.5 * read[10_000][0]
    assert read[1_000_000][1] < read[10_000][1] + 20


async def test_the_claim_computes_slots_in_place_and_hands_on_no_field_of_the_cadence(connection: Connection) -> None:
    """Calling a function for each routine, or carrying its cadence on, would make every tick slower."""
    tick = Statement.declared["tick.tick"].text
    cursor = await connection.execute(f"EXPLAIN (VERBOSE, FORMAT JSON) {tick}".encode(), {**TICK, "now": None})
    row = await cursor.fetchone()
    assert row
    [claimed] = [node for node in nodes(row[0][0]["Plan"]) if node.get("Subplan Name") == "CTE claimed"]
    computed = " ".join(text for node in nodes(claimed) for text in node["Output"])
    assert "date_bin" in computed
    assert not [name for name in ("next_fire", "latest_slot", "cadence_of", "without_spread") if f"{name}(" in computed]
    [scan] = [
        node
        for node in nodes(row[0][0]["Plan"])
        if node.get("CTE Name") == "claimed" and node.get("Alias") == "claimed"
    ]
    handed_on = set(re.findall(r"\w+", " ".join(scan["Output"])))
    assert not handed_on & {*Cadence.__struct_fields__[1:], "once_at", "starts_at", "ends_at", "upcoming"}
