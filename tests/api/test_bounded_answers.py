"""Answers are bounded: lists hold summaries, large runs are truncated, and expensive statements are cancelled."""

import asyncio
import json
from typing import Any, cast

import pytest
from litestar.testing import AsyncTestClient

from routines_api.endpoints import runs as run_endpoints
from routines_api.http import large_answers, sending
from routines_core.db import Connection
from routines_core.db import routines as db_routines
from routines_core.db import tasks as db_tasks
from routines_core.db import trajectories as db
from support.rows import value

Client = AsyncTestClient[Any]
RUN, LIST = "/api/v1/run/my-org/echo", "/api/v1/db/trajectories/my-org/echo"
ONE = "/api/v1/db/trajectory/my-org/echo"


async def run_with(
    client: Client, connection: Connection, steps: int, characters: int, *, can_be_compressed: bool = False
) -> int:
    """Start and end a run, and give it this many steps with outputs of this many characters."""
    run = (await client.post(RUN)).json()["trajectory_id"]
    random = "(SELECT string_agg(md5(random()::text || n || m), '') FROM generate_series(1, %s / 32) AS m)"
    text = "repeat('x', %s)" if can_be_compressed else random
    await connection.execute(
        f"""INSERT INTO routines.steps
                   (trajectory_id, name, position, fence, status, activity, inputs, outputs, ended_at)
            SELECT %s, 's' || n, n, 1, 'completed', 'text_echo', '{{}}', jsonb_build_object('text', {text}), now()
            FROM generate_series(1, %s) AS n""".encode(),
        [run, characters, steps],
    )
    await connection.execute(
        "UPDATE routines.trajectories SET status = 'completed', started_at = now(), ended_at = now() WHERE id = %s",
        [run],
    )
    return run


async def test_a_run_of_normal_size_reads_as_before(client: Client, connection: Connection) -> None:
    run = await run_with(client, connection, 3, 1024)
    [listed] = (await client.get(LIST)).json()["trajectories"]
    whole = (await client.get(f"{ONE}/{run}")).json()
    assert listed == whole
    assert "truncated" not in whole
    assert set(whole["steps"]["s1"]) == {
        "status", "activity", "inputs", "outputs", "created", "ended", "duration_seconds", "error",
    }  # fmt: skip
    assert list(whole["steps"]) == ["s1", "s2", "s3"]
    assert len(whole["steps"]["s2"]["outputs"]["text"]) == 1024


@pytest.mark.parametrize("can_be_compressed", [False, True])
async def test_a_list_leaves_out_large_values_and_says_so(
    client: Client, connection: Connection, *, can_be_compressed: bool
) -> None:
    await run_with(client, connection, 1, 100_000, can_be_compressed=can_be_compressed)
    [listed] = (await client.get(LIST)).json()["trajectories"]
    step = listed["steps"]["s1"]
    assert (step["inputs"], step["outputs"], step["truncated"], listed["truncated"]) == ({}, None, True, True)
    assert (listed["total_steps"], listed["completed_steps"]) == (0, 1)


async def test_a_list_reads_no_large_value(client: Client, connection: Connection) -> None:
    """The pages of out-of-line values are not read; a mutant that shows them fails."""
    run = await run_with(client, connection, 20, 500_000)
    await connection.execute("SELECT pg_stat_force_next_flush()")
    toast = "SELECT (SELECT reltoastrelid::regclass::text FROM pg_class WHERE oid = 'routines.steps'::regclass)"
    name = await value(connection, toast)
    blocks = "SELECT heap_blks_read + heap_blks_hit FROM pg_statio_all_tables WHERE relid = %s::regclass"

    async def read() -> int:
        await connection.execute("SELECT pg_stat_clear_snapshot()")
        found = await value(connection, blocks, name)
        assert isinstance(found, int)
        return found

    before = await read()
    parameters: dict[str, Any] = {"status": None, "routine_id": None, "limit": 10, "offset": 0}
    found, _ = await db.list_trajectories(connection, key_id=1, task_id=1, **parameters)
    assert found[0].trajectory_id == run
    await connection.execute("SELECT pg_stat_force_next_flush()")
    await connection.execute("SELECT 1")
    assert await read() == before


async def test_a_page_is_bounded_as_a_whole(
    client: Client, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "LISTED_PAGE_BYTES", 10_000)
    runs = [await run_with(client, connection, 3, 1024) for _ in range(4)]
    answer = await client.get(LIST)
    listed = answer.json()["trajectories"]
    assert [each["trajectory_id"] for each in listed] == runs[::-1]
    assert [each.get("truncated", False) for each in listed] == [False, False, True, True]
    assert [len(each["steps"]) for each in listed] == [3, 3, 0, 0]
    assert len(answer.content) < 20_000


async def test_a_list_shows_a_limited_number_of_steps_of_a_run(
    client: Client, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "LISTED_STEPS", 5)
    await run_with(client, connection, 6, 10)
    [listed] = (await client.get(LIST)).json()["trajectories"]
    assert (list(listed["steps"]), listed["truncated"]) == (["s1", "s2", "s3", "s4", "s5"], True)
    assert listed["completed_steps"] == 6


async def test_a_large_run_is_read_whole_up_to_the_limit(client: Client, connection: Connection) -> None:
    run = await run_with(client, connection, 10, 960_000)
    whole = await client.get(f"{ONE}/{run}")
    assert whole.headers["content-type"] == "application/json"
    body = whole.json()
    assert "truncated" not in body
    assert {len(step["outputs"]["text"]) for step in body["steps"].values()} == {960_000}


async def test_a_run_of_many_small_steps_is_read_whole_without_parsing_them(
    client: Client, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "SMALL_STEPS", 5)
    run = await run_with(client, connection, 6, 10)
    key_id = await value(connection, "SELECT min(id) FROM routines.api_keys")
    assert isinstance(key_id, int)
    parsed = await db.find_trajectory(connection, key_id=key_id, task="echo", trajectory_id=run)
    assert (len(parsed.steps), parsed.truncated) == (5, True)
    body = (await client.get(f"{ONE}/{run}")).json()
    assert (len(body["steps"]), "truncated" in body) == (6, False)


@pytest.mark.parametrize("can_be_compressed", [False, True])
async def test_beyond_the_limit_the_largest_steps_are_truncated(
    client: Client, connection: Connection, monkeypatch: pytest.MonkeyPatch, *, can_be_compressed: bool
) -> None:
    monkeypatch.setattr(db, "SMALL_BYTES", 10_000)
    monkeypatch.setattr(db.with_large_steps, "__kwdefaults__", {"most_bytes": 50_000})
    run = await run_with(client, connection, 2, 20_480, can_be_compressed=can_be_compressed)
    await connection.execute(
        """INSERT INTO routines.steps
                   (trajectory_id, name, position, fence, status, activity, inputs, outputs, ended_at)
           VALUES (%s, 'largest', 0, 1, 'completed', 'text_echo', jsonb_build_object('text', repeat('y', 30000)), '{}',
                   now())""",
        [run],
    )
    body = (await client.get(f"{ONE}/{run}")).json()
    assert [name for name, step in body["steps"].items() if step.get("truncated")] == ["largest"]
    assert (body["steps"]["largest"]["inputs"], body["truncated"]) == ({}, True)
    assert len(body["steps"]["s2"]["outputs"]["text"]) == 20_480


async def test_values_that_expand_enormously_are_not_read(client: Client, connection: Connection) -> None:
    """90 steps of 1 MiB that compress a hundredfold take 1 MB in the table, and would take 90 MiB as text."""
    run = await run_with(client, connection, 90, 1_000_000, can_be_compressed=True)
    answer = await client.get(f"{ONE}/{run}")
    assert answer.status_code == 200
    assert len(answer.content) < 17 * 1024 * 1024
    body = answer.json()
    shown = [step for step in body["steps"].values() if not step.get("truncated")]
    assert (len(shown), len(body["steps"]), body["truncated"]) == (16, 90, True)


async def test_run_sync_shows_the_outputs_of_a_large_run_within_its_limit(
    client: Client, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "SMALL_BYTES", 10_000)
    monkeypatch.setattr(run_endpoints, "SYNC_BYTES", 50_000)
    headers = {"Idempotency-Key": "k"}
    app = cast("Any", client).app
    app.state.services.run_waiter.seats.size = 0  # answers at once
    started = await client.post("/api/v1/run-sync/my-org/echo", headers=headers)
    run = started.json()["trajectory_id"]
    for name, size in (("small", 20_000), ("large", 40_000)):
        await connection.execute(
            """INSERT INTO routines.steps
                   (trajectory_id, name, position, fence, status, activity, inputs, outputs, ended_at)
               VALUES (%s, %s, 0, 1, 'completed', 'text_echo', '{}', jsonb_build_object('text', repeat('y', %s)),
                       now())""",
            [run, name, size],
        )
    await connection.execute("UPDATE routines.trajectories SET status = 'completed', ended_at = now()")
    answer = await client.post("/api/v1/run-sync/my-org/echo", headers=headers)
    body = answer.json()
    assert answer.status_code == 200
    assert (len(body["result"]["small"]["text"]), body["result"]["large"]) == (20_000, None)
    assert body["trajectory"]["truncated"] is True


async def test_a_label_on_a_large_run_answers_a_small_one(client: Client, connection: Connection) -> None:
    run = await run_with(client, connection, 5, 960_000)
    answer = await client.post(f"/api/v1/trajectory/my-org/echo/{run}/labels", json={"key": "a", "value": 1})
    assert answer.status_code == 200
    assert (answer.json()["truncated"], answer.json()["labels"][0]["key"]) == (True, "a")
    assert len(answer.content) < db.SMALL_BYTES


async def test_the_labels_of_a_run_are_bounded_in_bytes(client: Client, connection: Connection) -> None:
    run = (await client.post(RUN)).json()["trajectory_id"]
    label = f"/api/v1/trajectory/my-org/echo/{run}/labels"
    sent = [await client.post(label, json={"key": str(n), "value": "\u20ac" * 1000}) for n in range(23)]
    assert {answer.status_code for answer in sent[:21]} == {200}
    assert sent[22].status_code == 409
    assert "65536 bytes" in sent[22].json()["detail"]
    assert (await client.post(label, json={"key": "0", "value": 1})).status_code == 200


async def test_a_list_of_large_tasks_or_routines_ends_early_with_a_link(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db_tasks, "LISTED_BYTES", 2500)
    monkeypatch.setattr(db_routines, "LISTED_BYTES", 2500)
    large: dict[str, Any] = {"init_params": {"text": "x" * 1000}, "steps": [], "step_configs": {}}
    for name in ("t1", "t2", "t3", "t4"):
        assert (await client.post("/api/v1/tasks/my-org", json={"name": name, "workflow": large})).status_code == 201
        made = {"name": name, "cadence": {"type": "manual"}, "init_params_overrides": {"text": "y" * 1000}}
        assert (await client.post("/api/v1/routines/my-org/t1", json=made)).status_code == 201
    for path, names in (
        ("/api/v1/tasks/my-org", ["echo", "t1", "t2", "t3", "t4"]),
        ("/api/v1/routines/my-org", ["t1", "t2", "t3", "t4"]),
    ):
        found, pages, following = list[str](), 0, path
        while following:
            answer = await client.get(following)
            found += [each["name"] for each in answer.json()]
            pages, link = pages + 1, answer.headers.get("link", "")
            following = link.partition("<")[2].partition(">")[0]
        assert (found, pages) == (names, 2)


async def test_a_statement_cancelled_for_its_time_is_an_answer_of_its_own(
    client: Client, connection: Connection
) -> None:
    await connection.execute(
        """CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$"""
    )
    await connection.execute(
        "CREATE TRIGGER slow BEFORE INSERT ON routines.trajectories FOR EACH ROW EXECUTE FUNCTION public.slow()"
    )
    app = cast("Any", client).app
    for _ in range(5):  # whichever connection serves the request
        async with app.state.pool.connection() as one:
            await one.execute("SET statement_timeout = '200ms'")
    answer = await client.post(RUN)
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:routines:problem:statement-timeout")
    assert "too expensive" in answer.json()["detail"]
    assert "retry-after" in answer.headers
    page = (await client.get("/metrics")).text
    assert 'routines_api_refused_total{reason="statement-timeout"} 1.0' in page


async def test_the_detail_of_an_event_is_bounded(client: Client, connection: Connection) -> None:
    run = await run_with(client, connection, 1, 10)
    await connection.execute("UPDATE routines.steps SET error = repeat('e', 10000), status = 'failed'")
    workflow_id = (await client.get(f"{ONE}/{run}")).json()["workflow_id"]
    events = (await client.get(f"/api/v1/workflows-logs/{workflow_id}")).json()["events"]
    assert max(len(json.dumps(each)) for each in events) < 5000


async def test_a_client_that_stops_reading_a_large_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "PIECE_SECONDS", 0.05)

    async def stalled(_: Any) -> None:
        await asyncio.Event().wait()

    send = sending.Sending(stalled)
    with pytest.raises(TimeoutError):
        await send({"type": "http.response.body", "body": b"x", "more_body": True})


async def test_a_collection_loads_two_large_answers_at_once(
    client: Client, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, held = await run_with(client, connection, 2, 960_000), list[int]()
    gate, load = cast("Any", client).app.state.services.large_loads, db.with_large_steps

    async def noted(*arguments: Any, **given: Any) -> Any:
        held.append(gate.in_use)
        return await load(*arguments, **given)

    monkeypatch.setattr("routines_api.endpoints.trajectories.with_large_steps", noted)
    assert (await client.get(f"{ONE}/{run}")).status_code == 200
    assert (held, gate.in_use) == ([1], 0)
    assert [gate.try_enter("one") for _ in range(3)] == [True, True, False]
    assert gate.try_enter("another")


async def test_a_large_answer_holds_its_place_until_it_is_sent(client: Client, connection: Connection) -> None:
    """One collection gets four of the six places; the place is free again once the answer has arrived."""
    run = await run_with(client, connection, 2, 960_000)
    gate = cast("Any", client).app.state.services.large_answers
    for _ in range(8):
        assert (await client.get(f"{ONE}/{run}")).status_code == 200
    assert gate.in_use == 0


async def test_nothing_of_a_large_answer_stays_in_memory_once_it_is_sent(
    client: Client, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the text, which a traceback could keep, nor libpq's buffer, which lives as long as its connection."""
    run = await run_with(client, connection, 2, 960_000)
    load, connections, answers = db.with_large_steps, list[Any](), list[Any]()
    steps_of = large_answers._Pieces.each

    async def noted(given: Any, *arguments: Any, **named: Any) -> Any:
        connections.append(given)
        return await load(given, *arguments, **named)

    def each(pieces: Any) -> Any:
        answers.append(pieces)
        return steps_of(pieces)

    monkeypatch.setattr("routines_api.endpoints.trajectories.with_large_steps", noted)
    monkeypatch.setattr(large_answers._Pieces, "each", each)
    found = (await client.get(f"{ONE}/{run}")).json()
    assert [len(step["outputs"]["text"]) for step in found["steps"].values()] == [960_000] * 2
    assert connections[0].closed
    assert (answers[0].steps, answers[0].around) == ("", [])
    assert (await client.get(f"{ONE}/{run}")).json() == found
