"""A run knows the slot that it is for, whenever it starts and however often."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from routines_core.db import Connection, runs
from routines_core.db.tick import tick
from routines_engine.runs.worker import Worker
from routines_engine.steps.flow import StepFailedError
from support.flows import FakeServices, Journal, flow_of
from support.rows import CATCHUP, Database, at, make_routine, value
from support.stepping import session
from support.working import contained, run_of, task_of, until_ended, workflow_of, working

MONDAY = at("2026-05-04 09:00")
WINDOW = {
    "activity": "text_template",
    "template": "{{ slot.previous }} to {{ slot.scheduled_for }}, {{ slot.trigger }}",
}
DAY = {"activity": "text_echo", "text_path": "slot.date"}
SPEAKS = workflow_of(("window", WINDOW), ("day", DAY))
OF_MONDAY = {"window": "2026-05-03T09:00:00Z to 2026-05-04T09:00:00Z, schedule", "day": "2026-05-04"}
TEXTS = "SELECT jsonb_object_agg(name, outputs -> 'text') FROM routines.steps WHERE trajectory_id = %s"
Working = Callable[..., AbstractAsyncContextManager[Worker]]


@pytest.fixture
async def other(database: Database) -> AsyncGenerator[Connection]:
    """A session beside the worker."""
    async with session(database, "other") as connection:
        yield connection


async def late_run(connection: Connection, workflow: dict[str, Any]) -> int:
    """Fire Monday's slot of a daily routine twenty minutes late. Returns the run."""
    await make_routine(connection, await task_of(connection, "speak", workflow), MONDAY)
    await tick(connection, batch_size=10, now=at("2026-05-04 09:20"), **CATCHUP)
    found = await value(connection, "SELECT id FROM routines.trajectories")
    assert isinstance(found, int)
    return found


@pytest.mark.parametrize("works", [working, contained])
async def test_a_late_run_speaks_of_its_slot(database: Database, connection: Connection, works: Working) -> None:
    run = await late_run(connection, SPEAKS)
    async with works(database.url):
        assert await until_ended(connection, run) == ("completed", None)
    assert await value(connection, TEXTS, run) == OF_MONDAY


async def test_a_resumed_run_sees_what_it_saw_before(database: Database, connection: Connection) -> None:
    run = await late_run(connection, SPEAKS)
    [claimed] = await runs.claim(connection, capacity=1, worker="lost", lease_seconds=60, deadline_seconds=600)
    before = await runs.slot(connection, claimed)
    await connection.execute("UPDATE routines.trajectories SET lease_expires_at = now() WHERE id = %s", [run])
    # What it would be told now is different.
    await connection.execute("UPDATE routines.routines SET hour_utc = 17")
    async with working(database.url):
        assert await until_ended(connection, run) == ("completed", None)
    assert await value(connection, "SELECT slot_values FROM routines.trajectories WHERE id = %s", run) == before
    assert await value(connection, TEXTS, run) == OF_MONDAY


async def test_a_worker_that_lost_the_run_fixes_nothing(connection: Connection) -> None:
    run = await late_run(connection, SPEAKS)
    [claimed] = await runs.claim(connection, capacity=1, worker="lost", lease_seconds=60, deadline_seconds=600)
    await connection.execute("UPDATE routines.trajectories SET fence = fence + 1 WHERE id = %s", [run])
    assert await runs.slot(connection, claimed) is None
    assert await value(connection, "SELECT slot_values FROM routines.trajectories WHERE id = %s", run) is None


async def test_a_run_of_no_routine_has_only_a_trigger(database: Database, connection: Connection) -> None:
    whole = {"activity": "conditional_branch", "value": 1, "operator": "eq", "other": 1, "if_true_path": "slot"}
    run = await run_of(connection, await task_of(connection, "speak", workflow_of(("all", whole))))
    async with working(database.url):
        assert await until_ended(connection, run) == ("completed", None)
    known = await value(connection, "SELECT outputs -> 'value' FROM routines.steps WHERE trajectory_id = %s", run)
    nothing = dict.fromkeys(("scheduled_for", "date", "local_time", "previous", "last_success"))
    assert known == {**nothing, "trigger": "api"}


async def test_a_workflow_that_does_not_speak_of_its_slot_asks_for_nothing(
    database: Database, connection: Connection
) -> None:
    run = await late_run(connection, workflow_of(("say", {"activity": "text_echo", "text": "the slot.date of a slot"})))
    async with working(database.url):
        assert await until_ended(connection, run) == ("completed", None)
    assert await value(connection, "SELECT slot_values FROM routines.trajectories WHERE id = %s", run) is None


async def test_a_run_asks_once_for_all_its_steps() -> None:
    services = FakeServices(slot_values={"date": "2026-05-04", "previous": None})
    journal = Journal()
    steps = (
        ("first", DAY),
        ("second", DAY),
        ("raw", {"activity": "text_template", "template": "{{ slot.date }} after {{ slot.previous }}"}),
    )
    await flow_of(workflow_of(*steps), journal, services=services).run()
    assert services.asked_slot == 1
    assert [outputs for *_, outputs in journal.ends()] == [
        {"text": "2026-05-04"},
        {"text": "2026-05-04"},
        {"text": "2026-05-04 after null"},
    ]


async def test_a_step_named_slot_wins() -> None:
    services = FakeServices(slot_values={"date": "2026-05-04"})
    journal = Journal()
    steps = (
        ("slot", {"activity": "text_echo", "text": "mine"}),
        ("say", {"activity": "text_echo", "text_path": "slot.outputs.text"}),
    )
    await flow_of(workflow_of(*steps), journal, services=services).run()
    assert journal.ends()[-1] == ("say", "completed", {"text": "mine"})
    assert services.asked_slot == 0


async def test_a_step_named_slot_wins_before_it_has_run() -> None:
    services = FakeServices(slot_values={"date": "2026-05-04"})
    steps = (("early", DAY), ("slot", {"activity": "text_echo", "text": "mine"}))
    with pytest.raises(StepFailedError, match=r"reference slot\.date is missing"):
        await flow_of(workflow_of(*steps), Journal(), services=services).run()
    assert services.asked_slot == 0


async def test_a_variable_named_slot_wins_in_a_template() -> None:
    journal = Journal()
    step = {"activity": "text_template", "template": "{{ slot.date }}", "variables": {"slot": {"date": "mine"}}}
    await flow_of(workflow_of(("say", step)), journal, services=FakeServices(slot_values={"date": "its"})).run()
    assert journal.ends() == [("say", "completed", {"text": "mine"})]
