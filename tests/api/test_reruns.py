"""Reruns by HTTP: what is kept, what is taken anew, and what is refused."""

from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from routines_core.db import Connection, runs
from routines_core.db.runs import Checkpoint, Claim, StepRecord
from routines_core.db.tick import tick
from support.rows import CATCHUP, Database, value
from support.working import until_ended, working

Client = AsyncTestClient[Any]
STEPS = ["load", "clean", "send"]
WORKFLOW = {
    "init_params": {"day": "monday", "to": "ops"},
    "steps": STEPS,
    "step_configs": {
        "load": {"activity": "text_echo", "text_path": "init_params.day"},
        "clean": {"activity": "text_echo", "text_path": "load.outputs.text"},
        "send": {"activity": "text_template", "template": "{{ clean.outputs.text }} to {{ init_params.to }}"},
    },
}
RUN = "/api/v1/run/my-org/report"
RERUN = "/api/v1/rerun/my-org/report"
ROUTINE = "/api/v1/routines/my-org/report/r"
ACTIVE = "cancel it first, or wait for its end."


@pytest.fixture
async def report(client: Client) -> Client:
    """A client of a collection that has the task `report`."""
    made = await client.post("/api/v1/tasks/my-org", json={"name": "report", "workflow": WORKFLOW})
    assert made.status_code == 201, made.text
    return client


async def claimed(connection: Connection) -> Claim:
    [run] = await runs.claim(connection, capacity=1, worker="w", lease_seconds=60, deadline_seconds=600)
    return run


async def end(connection: Connection, *finished: str, failed: str | None = None) -> int:
    """Claim the pending run and end it after these steps, in the failure of another if one is named. Returns it."""
    run = await claimed(connection)
    steps = [
        StepRecord(name, STEPS.index(name), "completed", "text_echo", {}, outputs={"text": f"{name} of {run.id}"})
        for name in finished
    ]
    if failed:
        steps.append(StepRecord(failed, STEPS.index(failed), "failed", "text_echo", {}, error="no"))
    status, error = ("failed", f"step {failed!r} failed: no") if failed else ("completed", None)
    assert await runs.write(connection, [Checkpoint(run.id, run.fence, steps, status, error)], lease_seconds=60)
    return run.id


async def failed_run(client: Client, connection: Connection, **body: Any) -> int:
    """Start a run that fails in its last step. Returns it."""
    await client.post(RUN, json=body)
    return await end(connection, "load", "clean", failed="send")


async def rerun(client: Client, run: int, **body: Any) -> dict[str, Any]:
    answer = await client.post(f"{RERUN}/{run}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["trajectory"]


async def shown(client: Client, run: int) -> dict[str, Any]:
    return (await client.get(f"/api/v1/db/trajectory/my-org/report/{run}")).json()


async def test_a_whole_rerun_has_the_parameters_of_the_run_and_keeps_no_step(
    report: Client, connection: Connection
) -> None:
    run = await failed_run(report, connection, init_params={"day": "tuesday"})
    answer = await report.post(f"{RERUN}/{run}")
    assert (answer.status_code, answer.json()["message"]) == (200, f"Run {run} was started again as run {run + 1}.")
    again = answer.json()["trajectory"]
    assert (again["trigger"], again["rerun_of"], again["status"]) == ("rerun", run, "pending")
    assert (again["init_params"], again["steps"]) == ({"day": "tuesday", "to": "ops"}, {})
    assert not {"kept_steps", "lost_steps", "retry_of"} & again.keys()


async def test_a_rerun_from_a_step_shows_the_kept_steps_as_their_run_had_them(
    report: Client, connection: Connection
) -> None:
    run = await failed_run(report, connection)
    again = await rerun(report, run, from_step="send", init_params={"to": "all"})
    assert again["kept_steps"] == {"load": run, "clean": run}
    assert again["init_params"] == {"day": "monday", "to": "all"}
    assert (again["completed_steps"], again["total_steps"]) == (2, 3)
    first = await shown(report, run)
    kept = {name: {**first["steps"][name], "kept_from": run} for name in ("load", "clean")}
    assert again["steps"] == kept
    [listed, _] = (await report.get("/api/v1/db/trajectories/my-org/report")).json()["trajectories"]
    assert (listed["steps"], listed["kept_steps"]) == (kept, again["kept_steps"])
    own = "SELECT count(*) FROM routines.steps WHERE trajectory_id = %s"
    assert await value(connection, own, again["trajectory_id"]) == 0


async def test_a_rerun_of_a_rerun_names_the_run_that_executed_each_step(report: Client, connection: Connection) -> None:
    first = await failed_run(report, connection)
    second = (await rerun(report, first, from_step="clean"))["trajectory_id"]
    assert await end(connection, "clean", failed="send") == second
    third = await rerun(report, second, from_step="send")
    assert third["kept_steps"] == {"load": first, "clean": second}
    assert third["steps"]["load"]["outputs"] == {"text": f"load of {first}"}
    assert third["steps"]["clean"]["outputs"] == {"text": f"clean of {second}"}


async def test_a_worker_executes_only_the_steps_that_are_not_kept(
    report: Client, connection: Connection, database: Database
) -> None:
    run = await failed_run(report, connection)
    again = await rerun(report, run, from_step="send", init_params={"to": "all"})
    async with working(database.url):
        assert await until_ended(connection, again["trajectory_id"]) == ("completed", None)
    ended = await shown(report, again["trajectory_id"])
    assert ended["steps"]["send"]["outputs"] == {"text": f"clean of {run} to all"}
    executed = "SELECT array_agg(name) FROM routines.steps WHERE trajectory_id = %s"
    assert await value(connection, executed, again["trajectory_id"]) == ["send"]
    assert ended["completed_steps"] == 3


async def test_a_rerun_says_which_kept_steps_are_gone(report: Client, connection: Connection) -> None:
    run = await failed_run(report, connection)
    again = (await rerun(report, run, from_step="send"))["trajectory_id"]
    await end(connection, failed="send")
    await connection.execute("DELETE FROM routines.trajectories WHERE id = %s", [run])
    ended = await shown(report, again)
    assert (ended["lost_steps"], list(ended["steps"])) == (["clean", "load"], ["send"])
    assert ended["kept_steps"] == {"load": run, "clean": run}
    refused = await report.post(f"{RERUN}/{again}", json={"from_step": "send"})
    assert refused.status_code == 409
    assert refused.json()["detail"] == (
        f"Step 'load' before 'send' cannot be kept: run {run} has not completed it, or has been deleted."
    )
    assert (await rerun(report, again))["rerun_of"] == again


async def test_a_rerun_is_refused_while_its_run_is_active(report: Client, connection: Connection) -> None:
    run = (await report.post(RUN, json={})).json()["trajectory_id"]
    refused = await report.post(f"{RERUN}/{run}")
    assert (refused.status_code, refused.json()["detail"]) == (409, f"Run {run} is active: {ACTIVE}")
    await claimed(connection)
    assert (await report.post(f"{RERUN}/{run}")).status_code == 409
    await report.post("/api/v1/trajectory/my-org/report/statuses", json={str(run): "cancelled"})
    assert (await rerun(report, run))["rerun_of"] == run


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({"from_step": "none"}, 400, "from_step: the workflow of run 1 has no step 'none'."),
        ({"from_step": ""}, 400, "from_step: the workflow of run 1 has no step ''."),
        ({"from_step": 1}, 400, "from_step: must be a valid string"),
        ({"init_params": {"x": 1}}, 400, "init_params: x not declared in the task's workflow.init_params"),
        ({"foo": 1}, 400, "foo: unknown field."),
        ({"secret_params": {"K": "********"}}, 400, "secret_params: ******** stands for a stored value"),
        ({"webhook_secret": ""}, 400, "webhook_secret: must have at least 1 character"),
        ([], 400, "must be an object"),
    ],
)
async def test_a_body_that_is_not_valid_is_refused(
    report: Client, connection: Connection, body: object, status: int, detail: str
) -> None:
    run = await failed_run(report, connection)
    refused = await report.post(f"{RERUN}/{run}", json=body)
    assert refused.status_code == status
    assert refused.json()["detail"].startswith(detail.replace("run 1", f"run {run}"))
    assert await value(connection, "SELECT count(*) FROM routines.trajectories") == 1


async def test_a_step_before_that_is_not_finished_is_named(report: Client, connection: Connection) -> None:
    await report.post(RUN, json={})
    run = await end(connection, "load", failed="clean")
    refused = await report.post(f"{RERUN}/{run}", json={"from_step": "send"})
    assert refused.status_code == 409
    assert refused.json()["detail"].startswith("Step 'clean' before 'send' cannot be kept: run ")
    assert (await rerun(report, run, from_step="load"))["steps"] == {}


async def test_a_missing_run_and_one_of_another_task_answer_404(report: Client, connection: Connection) -> None:
    run = await failed_run(report, connection)
    for path in (f"{RERUN}/987654321", f"{RERUN}/x", f"/api/v1/rerun/my-org/echo/{run}"):
        for body in ({}, {"secret_params": {"KEY": "value"}}):
            assert (await report.post(path, json=body)).status_code == 404


async def test_the_version_of_the_workflow_is_that_of_the_run(report: Client, connection: Connection) -> None:
    run = await failed_run(report, connection)
    load = {"load": {"activity": "text_echo", "text_path": "init_params.day"}}
    changed = {"init_params": {"day": "monday"}, "steps": ["load"], "step_configs": load}
    assert (await report.put("/api/v1/tasks/my-org/report", json={"workflow": changed})).status_code == 200
    again = await rerun(report, run, from_step="send", init_params={"to": "all"})
    assert again["total_steps"] == 3
    version = "SELECT task_version FROM routines.trajectories WHERE id = %s"
    assert await value(connection, version, again["trajectory_id"]) == 1


async def test_an_idempotency_key_reruns_once(report: Client, connection: Connection) -> None:
    run = await failed_run(report, connection)
    answers = [await report.post(f"{RERUN}/{run}", json={}, headers={"Idempotency-Key": "once"}) for _ in range(2)]
    assert answers[0].content == answers[1].content
    assert await value(connection, "SELECT count(*) FROM routines.trajectories") == 2
    other = await report.post(f"{RERUN}/{run}", json={"from_step": "load"}, headers={"Idempotency-Key": "once"})
    assert other.status_code == 409


# --- secrets ----------------------------------------------------------------------------------------------------------

SECRETS = "SELECT count(*) FROM routines.secrets"


async def test_the_rerun_of_a_run_has_only_the_secrets_that_are_sent(report: Client, connection: Connection) -> None:
    run = await failed_run(report, connection, secret_params={"KEY": "old"})
    assert await value(connection, SECRETS) == 0
    again = await rerun(report, run, secret_params={"TOKEN": "new"})
    assert "new" not in str(again)
    refs = "SELECT array(SELECT jsonb_object_keys(secret_refs)) FROM routines.trajectories WHERE id = %s"
    assert await value(connection, refs, again["trajectory_id"]) == ["TOKEN"]
    await end(connection, failed="load")
    assert await value(connection, SECRETS) == 0


async def test_the_rerun_of_a_routines_run_has_the_secrets_of_today(report: Client, connection: Connection) -> None:
    manual = {"name": "r", "cadence": {"type": "manual"}, "secret_params": {"KEY": "old"}}
    await report.post("/api/v1/routines/my-org/report", json=manual)
    await report.post(f"{ROUTINE}/run-now")
    run = await end(connection, failed="load")
    hook = {"webhook_url": "https://receiver.example/today", "webhook_secret": "whsec"}
    await report.patch(ROUTINE, json={"secret_params": {"KEY": "new", "OTHER": "b"}, **hook})
    again = (await rerun(report, run, secret_params={"OTHER": "mine"}))["trajectory_id"]
    same = """SELECT run.secret_refs ->> 'KEY' = routine.secret_refs ->> 'KEY',
                     run.secret_refs ->> 'OTHER' <> routine.secret_refs ->> 'OTHER',
                     run.webhook_url = routine.webhook_url, run.webhook_secret_id = routine.webhook_secret_id
              FROM routines.trajectories AS run
              JOIN routines.routines AS routine ON routine.id = triggered_by_routine_id WHERE run.id = %s"""
    assert await (await connection.execute(same.encode(), [again])).fetchone() == (True, True, True, True)
    await end(connection, failed="load")
    assert await value(connection, "SELECT count(*) FROM routines.secrets WHERE kind = 'secret_param'") == 2


async def test_a_signed_webhook_of_a_run_needs_its_secret_again(report: Client, connection: Connection) -> None:
    run = await failed_run(report, connection, webhook_url="https://receiver.example/", webhook_secret="s")
    await connection.execute("DELETE FROM routines.webhook_deliveries")
    refused = await report.post(f"{RERUN}/{run}")
    assert refused.status_code == 400
    assert refused.json()["detail"].startswith("webhook_secret: is required, since the webhook of that run was signed")
    again = await rerun(report, run, webhook_secret="new")
    assert again["webhook_url"] == "https://receiver.example/"
    signed = "SELECT webhook_secret_id IS NOT NULL FROM routines.trajectories WHERE rerun_of IS NOT NULL"
    assert await value(connection, signed) is True


# --- the slot ---------------------------------------------------------------------------------------------------------


async def failed_slot(client: Client, connection: Connection) -> int:
    """Let the run of a slot fail in its last step. Returns it."""
    made = await client.post("/api/v1/routines/my-org/report", json={"name": "r", "cadence": {"type": "hourly"}})
    assert made.status_code == 201, made.text
    now = await value(connection, "SELECT date_trunc('hour', now())")
    await connection.execute("UPDATE routines.routines SET settled_until = NULL, next_run_at = %s", [now])
    assert (await tick(connection, batch_size=10, now=now, **CATCHUP)).fired == 1  # type: ignore[arg-type]
    return await end(connection, "load", "clean", failed="send")


async def test_a_rerun_of_a_slots_run_is_the_outcome_of_the_slot(report: Client, connection: Connection) -> None:
    run = await failed_slot(report, connection)
    again = await rerun(report, run, from_step="send")
    assert (again["retry_of"], again["rerun_of"], again["scheduled_for"]) == (run, run, None)
    assert await end(connection, "send") == again["trajectory_id"]
    assert (await shown(report, run))["retried_by"] == again["trajectory_id"]
    [slot] = (await report.get(f"{ROUTINE}/occurrences")).json()
    assert (slot["trajectory_id"], slot["last_trajectory_id"], slot["status"]) == (
        run,
        again["trajectory_id"],
        "completed",
    )
    assert [each["trigger"] for each in (await report.get(f"{ROUTINE}/runs")).json()] == ["rerun", "schedule"]
    of_routine = {"triggered_by_routine_id": again["triggered_by_routine_id"]}
    listed = await report.get("/api/v1/db/trajectories/my-org/report", params=of_routine)
    assert [each["trigger"] for each in listed.json()["trajectories"]] == ["rerun", "schedule"]
    why = (await report.get(f"{ROUTINE}/why", params={"at": slot["scheduled_for"]})).json()["sentence"]
    assert f" Run again: run {again['trajectory_id']} at " in why
    [line] = (await report.get("/api/v1/report/my-org")).json()["routines"]
    assert (line["started"], line["completed"], line["failed"]) == (1, 1, 0)
    assert (await report.get(f"{ROUTINE}/gaps", params={"include": "failed"})).json() == []


async def test_a_later_attempt_that_is_active_is_named(report: Client, connection: Connection) -> None:
    run = await failed_slot(report, connection)
    again = (await rerun(report, run))["trajectory_id"]
    refused = await report.post(f"{RERUN}/{run}")
    assert (refused.status_code, refused.json()["detail"]) == (
        409,
        f"Run {again}, a later attempt, is active: {ACTIVE}",
    )


async def test_the_rerun_of_a_slots_run_knows_its_slot(report: Client, connection: Connection) -> None:
    run = await failed_slot(report, connection)
    again = (await rerun(report, run))["trajectory_id"]
    slot = "SELECT slot_values ->> 'scheduled_for' FROM routines.trajectories WHERE id = %s"
    fired_for = "SELECT routines.utc(scheduled_for) FROM routines.trajectories WHERE id = %s"
    assert await value(connection, slot, again) == await value(connection, fired_for, run)


async def test_a_run_of_a_deleted_routine_can_be_rerun(report: Client, connection: Connection) -> None:
    run = await failed_slot(report, connection)
    assert (await report.delete(ROUTINE)).status_code == 204
    again = await rerun(report, run, from_step="send", secret_params={"KEY": "mine"})
    assert (again["retry_of"], again["kept_steps"]) == (run, {"load": run, "clean": run})
    await end(connection, "send")
    assert await value(connection, SECRETS) == 0


async def test_the_webhook_of_a_rerun_has_the_kept_steps(report: Client, connection: Connection) -> None:
    run = await failed_run(report, connection, webhook_url="https://receiver.example/")
    again = (await rerun(report, run, from_step="send"))["trajectory_id"]
    await end(connection, "send")
    body = await value(connection, "SELECT routines.webhook_body(%s, 'completed', 10000, 100000)::jsonb", again)
    assert isinstance(body, dict)
    ended = await shown(report, again)
    assert body["steps"]["clean"]["kept_from"] == run
    same = ("kept_steps", "rerun_of", "completed_steps", "total_steps", "trigger")
    assert {name: body[name] for name in same} == {name: ended[name] for name in same}
    assert body["steps"]["load"]["outputs"] == ended["steps"]["load"]["outputs"]
