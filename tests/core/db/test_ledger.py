"""Reading the ledger: the outcome of each slot, the reason, and the coming slots."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from routines_core.db import Connection, ledger
from routines_core.db.ledger import Explanation
from routines_core.db.routines import Cadence
from routines_core.db.statements import Statement
from routines_core.db.tick import tick
from support.rows import CATCHUP, at, make_key, make_routine, make_task, value

MONDAY = at("2026-05-04 09:00")
DAY = timedelta(days=1)


async def run_tick(connection: Connection, now: datetime, **arguments: Any) -> None:
    await tick(connection, batch_size=10, now=now, **CATCHUP, **arguments)


async def daily(connection: Connection, next_run_at: datetime = MONDAY) -> tuple[int, int]:
    """Create a daily routine at 09:00, a day before its first slot. Returns (key_id, routine_id)."""
    routine = await make_routine(connection, await make_task(connection), next_run_at)
    await connection.execute("UPDATE routines.routines SET created_at = %s", [next_run_at - DAY])
    return await key_of(connection, "my-org"), routine


async def key_of(connection: Connection, collection: str) -> int:
    """Create a key and return its id."""
    return int((await make_key(connection, collection)).split("_")[1])


async def finish_runs(connection: Connection) -> None:
    await connection.execute(
        "UPDATE routines.trajectories SET status = 'completed', ended_at = now() WHERE ended_at IS NULL"
    )


async def pause(connection: Connection) -> None:
    """Make it look as if a person had paused the routine on that Monday, an hour after its first slot."""
    await connection.execute(
        """UPDATE routines.routines
           SET paused = true, paused_at = '2026-05-04 10:00Z', settled_until = '2026-05-04 10:00Z'"""
    )


async def asked(connection: Connection, ids: tuple[int, int], time: datetime, now: datetime) -> Explanation:
    return await ledger.why(connection, key_id=ids[0], routine_id=ids[1], at=time, now=now)


async def slots_with(connection: Connection, ids: tuple[int, int], **filters: Any) -> list[datetime]:
    rows = await ledger.list_occurrences(connection, key_id=ids[0], routine_id=ids[1], **filters)
    return [row.scheduled_for for row in rows]


async def a_week_of_outcomes(connection: Connection) -> tuple[int, int]:
    """Tick a week: Monday started, Tuesday overlap, Wednesday failed, Thursday and Friday missed, Saturday started."""
    ids = await daily(connection)
    await run_tick(connection, MONDAY)
    await run_tick(connection, MONDAY + DAY)
    await finish_runs(connection)
    await run_tick(connection, MONDAY + 2 * DAY, fault="poison")
    await run_tick(connection, MONDAY + 5 * DAY)
    return ids


async def test_occurrences_come_newest_first_page_by_page(connection: Connection) -> None:
    ids = await a_week_of_outcomes(connection)
    first = await slots_with(connection, ids, limit=2)
    second = await slots_with(connection, ids, limit=2, cursor=first[-1])
    third = await slots_with(connection, ids, limit=2, cursor=second[-1])
    assert first + second + third == [MONDAY + days * DAY for days in (5, 3, 2, 1, 0)]
    assert await slots_with(connection, ids, limit=2, cursor=third[-1]) == []


@pytest.mark.parametrize(
    ("outcome", "days"),
    [("started", [5, 0]), ("skipped", [3, 2, 1]), ("overlap", [1]), ("missed", [3]), ("failed_to_start", [2])],
)
async def test_occurrences_can_be_filtered_by_outcome(connection: Connection, outcome: str, days: list[int]) -> None:
    ids = await a_week_of_outcomes(connection)
    assert await slots_with(connection, ids, outcome=outcome) == [MONDAY + day * DAY for day in days]


async def test_a_span_is_listed_if_it_touches_the_period(connection: Connection) -> None:
    ids = await a_week_of_outcomes(connection)
    friday = MONDAY + 4 * DAY
    assert await slots_with(connection, ids, since=friday, until=friday + DAY) == [MONDAY + 3 * DAY]
    assert await slots_with(connection, ids, since=friday + timedelta(hours=1), until=friday + DAY) == []


async def test_another_collection_sees_nothing(connection: Connection) -> None:
    _, routine = await a_week_of_outcomes(connection)
    other = await key_of(connection, "other-org")
    assert await slots_with(connection, (other, routine)) == []
    facts = await asked(connection, (other, routine), MONDAY, MONDAY + 9 * DAY)
    assert (facts.kind, facts.trajectory_id, facts.next_slot) == ("deleted", None, None)


async def test_the_newest_page_of_a_long_history_reads_only_the_rows_it_shows(connection: Connection) -> None:
    ids = await daily(connection)
    await connection.execute(
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id,
                                              scheduled_for, trigger, init_params, status, ended_at)
           SELECT 1, 1, 1, 1, '2000-01-01'::timestamptz + n * interval '1 hour', 'schedule', '{}', 'completed', now()
           FROM generate_series(1, 20000) n"""
    )
    await connection.execute("VACUUM ANALYZE routines.trajectories")
    cursor = await connection.execute(
        (
            "EXPLAIN (ANALYZE, FORMAT TEXT, COSTS off, TIMING off, SUMMARY off) "
            + Statement.declared["ledger.list_occurrences"].text
        ).encode(),
        {
            "key_id": str(ids[0]),
            "routine_id": ids[1],
            "since": None,
            "until": None,
            "outcome": None,
            "before": None,
            "page_size": 5,
        },
    )
    plan = "\n".join([row[0] for row in await cursor.fetchall()])
    assert "Index Scan Backward using trajectories_slot_key on trajectories (actual rows=5" in plan, plan
    assert "Seq Scan" not in plan, plan


async def test_why_explains_a_started_slot(connection: Connection) -> None:
    ids = await a_week_of_outcomes(connection)
    facts = await asked(connection, ids, MONDAY, MONDAY + 9 * DAY)
    assert (facts.kind, facts.trajectory_id, facts.trajectory_status) == ("started", 1, "completed")
    assert facts.sentence.startswith("Started: run 1 at 2026-05-04T09:00:00Z, completed at ")


async def test_why_names_the_run_that_caused_an_overlap_and_its_start(connection: Connection) -> None:
    ids = await a_week_of_outcomes(connection)
    await connection.execute("UPDATE routines.trajectories SET started_at = '2026-05-04 09:00:01Z' WHERE id = 1")
    facts = await asked(connection, ids, MONDAY + DAY, MONDAY + 9 * DAY)
    assert (facts.kind, facts.blocking_trajectory_id) == ("overlap", 1)
    assert facts.sentence == "Skipped: run 1 was still running, started 2026-05-04T09:00:01Z."


async def test_why_explains_a_fire_that_failed_to_start(connection: Connection) -> None:
    ids = await a_week_of_outcomes(connection)
    facts = await asked(connection, ids, MONDAY + 2 * DAY, MONDAY + 9 * DAY)
    assert (facts.kind, facts.sentence) == ("failed_to_start", "Skipped: the run failed to start: poison.")


async def test_why_explains_a_slot_inside_a_missed_span(connection: Connection) -> None:
    ids = await daily(connection)
    await run_tick(connection, MONDAY + 30 * DAY)
    facts = await asked(connection, ids, MONDAY + 7 * DAY, MONDAY + 31 * DAY)
    assert (facts.kind, facts.slot_count) == ("missed", 30)
    assert facts.sentence == (
        "Missed: no ticker picked it up in time, as were all 30 slots from 2026-05-04T09:00:00Z to "
        "2026-06-02T09:00:00Z; recorded 2026-06-03T09:00:00Z."
    )


async def test_a_time_between_the_slots_of_a_missed_span_is_not_a_slot(connection: Connection) -> None:
    ids = await daily(connection)
    await run_tick(connection, MONDAY + 30 * DAY)
    facts = await asked(connection, ids, MONDAY + 7 * DAY + timedelta(hours=1), MONDAY + 31 * DAY)
    assert (facts.kind, facts.slot_count) == ("not_a_slot", None)
    assert facts.sentence == "No slot: the next is 2026-05-12T09:00:00Z."


async def test_a_missed_span_keeps_its_slots_when_the_cadence_changes(connection: Connection) -> None:
    ids = await daily(connection)
    now = MONDAY + 31 * DAY
    await run_tick(connection, MONDAY + 30 * DAY)
    await connection.execute("UPDATE routines.routines SET cadence_type = 'weekdays', hour_utc = 17")
    assert (await asked(connection, ids, MONDAY + 7 * DAY, now)).kind == "missed"
    facts = await asked(connection, ids, MONDAY + 7 * DAY + timedelta(hours=8), now)
    assert facts.sentence == "No slot: the routine had a different cadence then."


@pytest.mark.parametrize(
    ("asked_at", "next_slot"),
    [
        (MONDAY - 9 * DAY, MONDAY),  # before the routine was created
        (MONDAY + timedelta(hours=8, minutes=5), MONDAY + DAY),  # later in the span
        (MONDAY + 4 * DAY + timedelta(minutes=5), MONDAY + 5 * DAY),  # after the span, the run
    ],
)
async def test_the_next_slot_after_a_past_time_follows_the_cadence_of_that_time(
    connection: Connection, asked_at: datetime, next_slot: datetime
) -> None:
    ids = await daily(connection)
    await run_tick(connection, MONDAY + 5 * DAY)
    await connection.execute("UPDATE routines.routines SET cadence_type = 'hourly', hour_utc = NULL, minute_utc = 30")
    facts = await asked(connection, ids, asked_at, MONDAY + 6 * DAY)
    assert (facts.kind in {"before_creation", "not_a_slot"}, facts.next_slot) == (True, next_slot)


async def test_after_the_last_outcome_the_next_slot_follows_the_current_cadence(connection: Connection) -> None:
    ids = await daily(connection)
    await connection.execute("UPDATE routines.routines SET cadence_type = 'hourly', hour_utc = NULL, minute_utc = 30")
    last = await value(connection, "SELECT last_scheduled_for FROM routines.skips")
    assert isinstance(last, datetime)
    facts = await asked(connection, ids, last + timedelta(minutes=1), last + DAY)
    assert facts.next_slot == await value(connection, "SELECT next_run_at FROM routines.routines")


async def test_why_explains_a_future_slot_and_a_future_time_that_is_not_a_slot(connection: Connection) -> None:
    ids = await daily(connection)
    coming = await asked(connection, ids, MONDAY + DAY, MONDAY - timedelta(minutes=1))
    assert (coming.kind, coming.sentence) == ("future", "Upcoming: the slot is due at 2026-05-05T09:00:00Z.")
    between = await asked(connection, ids, MONDAY + timedelta(hours=3), MONDAY - timedelta(minutes=1))
    assert between.sentence == "No slot: the next is 2026-05-05T09:00:00Z."


async def test_why_does_not_call_a_time_before_the_first_slot_passed_over(connection: Connection) -> None:
    ids = await daily(connection)
    before = await asked(connection, ids, MONDAY - timedelta(hours=3), MONDAY - timedelta(hours=3))
    assert (before.sentence, before.detail) == ("No slot: the next is 2026-05-04T09:00:00Z.", None)


async def test_why_explains_a_slot_that_is_due_but_not_ticked_yet(connection: Connection) -> None:
    ids = await daily(connection)
    for slot in (MONDAY, MONDAY + DAY):
        facts = await asked(connection, ids, slot, MONDAY + DAY)
        assert facts.kind == "pending"
    assert facts.sentence == "Due since 2026-05-05T09:00:00Z; no ticker has picked it up yet."


async def test_why_explains_slots_passed_over_by_hand_before_and_after_the_tick(connection: Connection) -> None:
    ids = await daily(connection)
    await run_tick(connection, MONDAY)
    await connection.execute("UPDATE routines.routines SET next_run_at = %s", [MONDAY + 4 * DAY])
    for now in (MONDAY + DAY / 2, MONDAY + 3 * DAY):
        facts = await asked(connection, ids, MONDAY + 2 * DAY, now)
        assert (facts.kind, facts.sentence) == (
            "passed_over",
            "It will be missed: next_run_at was set past it by hand, to 2026-05-08T09:00:00Z.",
        )
    between = await asked(connection, ids, MONDAY + 2 * DAY + timedelta(hours=1), MONDAY + 3 * DAY)
    assert between.kind == "not_a_slot"
    await run_tick(connection, MONDAY + 4 * DAY)
    facts = await asked(connection, ids, MONDAY + 2 * DAY, MONDAY + 5 * DAY)
    assert facts.kind == "missed"
    assert facts.sentence == (
        "Missed: next_run_at was set past it by hand, to 2026-05-08T09:00:00Z, as were all 3 slots from "
        "2026-05-05T09:00:00Z to 2026-05-07T09:00:00Z; recorded 2026-05-08T09:00:00Z."
    )
    assert (await asked(connection, ids, MONDAY + 4 * DAY, MONDAY + 5 * DAY)).kind == "overlap"


async def test_why_explains_a_time_before_the_routine_was_created(connection: Connection) -> None:
    ids = await daily(connection)
    facts = await asked(connection, ids, MONDAY - 2 * DAY, MONDAY)
    assert facts.sentence == (
        "No slot: the routine was created later, at 2026-05-03T09:00:00Z; its first slot was 2026-05-04T09:00:00Z."
    )


async def test_why_explains_past_and_future_slots_in_a_pause(connection: Connection) -> None:
    ids = await daily(connection)
    await pause(connection)
    past = await asked(connection, ids, MONDAY + DAY, MONDAY + 2 * DAY)
    assert (past.kind, past.sentence) == ("paused", "Skipped: paused by hand, since 2026-05-04T10:00:00Z.")
    coming = await asked(connection, ids, MONDAY + 3 * DAY, MONDAY + 2 * DAY)
    assert (coming.kind, coming.sentence) == (
        "paused_in_future",
        "It will be skipped unless the routine is resumed: paused by hand, since 2026-05-04T10:00:00Z.",
    )
    between = await asked(connection, ids, MONDAY + timedelta(hours=5), MONDAY + 2 * DAY)
    assert between.sentence == "No slot: the next is 2026-05-05T09:00:00Z."
    between = await asked(connection, ids, MONDAY + 3 * DAY + timedelta(hours=5), MONDAY + 2 * DAY)
    assert between.sentence == "No slot: none is coming (paused by hand, since 2026-05-04T10:00:00Z)."


async def test_a_cadence_set_during_a_pause_has_no_slots_before_the_change(connection: Connection) -> None:
    ids = await daily(connection)
    await pause(connection)
    await connection.execute("UPDATE routines.routines SET hour_utc = 15")
    assert (await asked(connection, ids, MONDAY + DAY, MONDAY + 2 * DAY)).kind == "paused"
    assert (await asked(connection, ids, MONDAY + DAY + timedelta(hours=6), MONDAY + 2 * DAY)).kind == "not_a_slot"


async def test_why_gives_the_reason_of_the_pause_after_the_third_strike(connection: Connection) -> None:
    ids = await daily(connection)
    for day in range(3):
        await run_tick(connection, MONDAY + day * DAY, fault="poison")
    facts = await asked(connection, ids, MONDAY + 4 * DAY, MONDAY + 5 * DAY)
    assert facts.sentence == (
        "Skipped: paused after 3 fires in a row that failed to start; the last: poison, since 2026-05-06T09:00:00Z."
    )


async def test_why_says_that_a_manual_routine_has_no_slots(connection: Connection) -> None:
    ids = await daily(connection, datetime.now(at("2026-01-01 00:00").tzinfo) + DAY)
    await connection.execute("UPDATE routines.routines SET cadence_type = 'manual', hour_utc = NULL")
    facts = await asked(connection, ids, MONDAY + 900 * DAY, MONDAY)
    assert facts.kind in {"not_a_slot", "before_creation"}
    facts = await asked(connection, ids, facts.routine_created_at or MONDAY, MONDAY)
    assert facts.sentence == "No slot: the routine is manual and has none."


async def test_the_ledger_of_a_deleted_routine_can_still_be_read(connection: Connection) -> None:
    ids = await a_week_of_outcomes(connection)
    await connection.execute(
        "UPDATE routines.routines SET settled_until = now(), next_run_at = now() + interval '1 hour'"
    )
    await connection.execute("DELETE FROM routines.routines")
    assert len(await slots_with(connection, ids)) == 5
    assert (await asked(connection, ids, MONDAY, MONDAY + 9 * DAY)).kind == "started"
    assert (await asked(connection, ids, MONDAY + 4 * DAY, MONDAY + 9 * DAY)).kind == "missed"
    facts = await asked(connection, ids, MONDAY + 20 * DAY, MONDAY + 9 * DAY)
    assert facts.sentence == "No record: the routine was deleted, and the ledger has no such slot."


async def test_coming_slots_of_a_routine_begin_with_its_next_run_at(connection: Connection) -> None:
    key_id, routine = await daily(connection)
    slots = await ledger.next_slots(
        connection, key_id=key_id, routine_id=routine, after=MONDAY - timedelta(hours=1), count=3
    )
    assert slots == [MONDAY, MONDAY + DAY, MONDAY + 2 * DAY]
    later = await ledger.next_slots(connection, key_id=key_id, routine_id=routine, after=MONDAY, count=2)
    assert later == [MONDAY + DAY, MONDAY + 2 * DAY]
    await connection.execute("UPDATE routines.routines SET paused = true")
    assert await ledger.next_slots(connection, key_id=key_id, routine_id=routine) == []


async def test_a_cadence_can_be_previewed_before_it_is_saved(connection: Connection) -> None:
    friday = at("2026-05-08 09:00")
    weekdays = Cadence("weekdays", hour_utc=9)
    assert await ledger.preview(connection, weekdays, after=friday, count=2) == [friday + 3 * DAY, friday + 4 * DAY]
    assert await ledger.preview(connection, Cadence("manual")) == []
    assert len(await ledger.preview(connection, Cadence("hourly"), count=10_000)) == 100
    assert await ledger.preview(connection, Cadence("hourly"), count=0) == []
