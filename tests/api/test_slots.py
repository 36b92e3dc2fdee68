"""Parameters that runs take from their slot, by HTTP."""

from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from routines_core.db import Connection
from routines_workflow.references import SLOT_NAMES
from support.rows import value

Client = AsyncTestClient[Any]
BASE = "/api/v1/routines/my-org/echo"
ROUTINE = f"{BASE}/r"
DAILY = {"name": "r", "cadence": {"type": "daily", "hour_utc": 9}}
TAKEN = {"zeta": "slot.date", "a": "slot.last_success"}
LISTED = "'slot.scheduled_for', 'slot.date', 'slot.local_time', 'slot.previous', 'slot.last_success' or 'slot.trigger'"


async def test_parameters_from_the_slot_are_saved_shown_replaced_and_removed(client: Client) -> None:
    made = await client.post(BASE, json={**DAILY, "init_params_from_slot": TAKEN})
    assert made.status_code == 201, made.text
    assert made.json()["init_params_from_slot"] == TAKEN
    assert (await client.get(ROUTINE)).json() == {**made.json(), "warnings": []}
    assert (await client.get(BASE)).json() == [made.json()]
    assert (await client.patch(ROUTINE, json=made.json())).json() == made.json()
    changed = await client.patch(ROUTINE, json={"init_params_from_slot": {"a": "slot.previous"}})
    assert changed.json()["init_params_from_slot"] == {"a": "slot.previous"}
    assert (await client.patch(ROUTINE, json={"paused": True})).json()["init_params_from_slot"] == {
        "a": "slot.previous"
    }
    assert "init_params_from_slot" not in (await client.patch(ROUTINE, json={"init_params_from_slot": None})).json()


@pytest.mark.parametrize("name", SLOT_NAMES)
async def test_everything_that_a_workflow_may_name_can_be_taken(client: Client, name: str) -> None:
    taken = {"zeta": f"slot.{name}"}
    made = await client.post(BASE, json={**DAILY, "init_params_from_slot": taken})
    assert (made.status_code, made.json()["init_params_from_slot"]) == (201, taken)


@pytest.mark.parametrize("none", [None, {}])
async def test_a_routine_without_them_does_not_show_them(client: Client, none: object) -> None:
    made = await client.post(BASE, json={**DAILY, "init_params_from_slot": none})
    assert made.status_code == 201
    assert "init_params_from_slot" not in made.json()


@pytest.mark.parametrize(
    ("taken", "field", "rule"),
    [
        ({"zeta": "slot.foo"}, "init_params_from_slot.zeta", f'must be {LISTED}, not "slot.foo"'),
        ({"zeta": "date"}, "init_params_from_slot.zeta", f'must be {LISTED}, not "date"'),
        ({"zeta": 1}, "init_params_from_slot.zeta", f"must be {LISTED}, not 1"),
        ({"nope": "slot.date"}, "init_params_from_slot.nope", "the task declares no such parameter"),
        (["zeta"], "init_params_from_slot", 'must be an object, not ["zeta"]'),
        ({f"p{n}": "slot.date" for n in range(51)}, "init_params_from_slot", "must have at most 50 items"),
    ],
)
async def test_parameters_that_cannot_be_taken_are_refused(
    client: Client, taken: object, field: str, rule: str
) -> None:
    refused = await client.post(BASE, json={**DAILY, "init_params_from_slot": taken})
    assert refused.status_code == 400
    assert refused.json()["errors"] == [{"field": field, "message": rule}]
    await client.post(BASE, json=DAILY)
    patched = await client.patch(ROUTINE, json={"init_params_from_slot": taken})
    assert (patched.status_code, patched.json()["errors"]) == (400, refused.json()["errors"])


async def test_one_that_the_task_no_longer_declares_may_stay_and_is_warned_of(client: Client) -> None:
    made = (await client.post(BASE, json={**DAILY, "init_params_from_slot": TAKEN})).json()
    workflow = {"init_params": {"a": 1}, "steps": [], "step_configs": {}}
    await client.put("/api/v1/tasks/my-org/echo", json={"workflow": workflow})
    assert (await client.patch(ROUTINE, json=made)).status_code == 200
    assert (await client.get(ROUTINE)).json()["warnings"] == [
        "init_params_from_slot: the task no longer declares 'zeta'."
    ]


async def test_run_now_takes_what_there_is_without_a_slot(client: Client, connection: Connection) -> None:
    taken = {"zeta": "slot.date", "a": "slot.trigger", "none": "slot.last_success"}
    overrides = {"zeta": "mine", "none": "first"}
    made = await client.post(BASE, json={**DAILY, "init_params_from_slot": taken, "init_params_overrides": overrides})
    assert made.status_code == 201, made.text
    started = (await client.post(f"{ROUTINE}/run-now")).json()
    assert started["trajectory"]["init_params"] == {"zeta": "mine", "a": "run-now", "none": "first", "list": []}
    await connection.execute("UPDATE routines.trajectories SET status = 'completed', ended_at = now()")
    await connection.execute(
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, trigger,
                                              scheduled_for, init_params, status, ended_at)
           SELECT collection_id, task_id, 1, id, 'schedule', '2026-05-04 09:00Z', '{}', 'completed', now()
           FROM routines.routines"""
    )
    started = (await client.post(f"{ROUTINE}/run-now")).json()
    assert started["trajectory"]["init_params"]["none"] == "2026-05-04T09:00:00Z"


async def test_a_routine_without_them_fixes_nothing_at_its_start(client: Client, connection: Connection) -> None:
    await client.post(BASE, json=DAILY)
    await client.post(f"{ROUTINE}/run-now")
    assert await value(connection, "SELECT count(*) FROM routines.trajectories WHERE slot_values IS NULL") == 1
