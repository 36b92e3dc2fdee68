"""What has changed since an earlier answer, by HTTP: nothing is missed, whatever order transactions end in."""

import base64
from datetime import timedelta
from typing import Any

import msgspec
import psycopg
import pytest
from litestar.testing import AsyncTestClient

from routines_core.db import Connection, changes
from routines_core.db.changes import Moment
from routines_core.db.tick import tick
from support.rows import CATCHUP, Database, make_key, value

Client = AsyncTestClient[Any]
ROUTINES = "/api/v1/routines/my-org/echo"
CHANGES = "/api/v1/db/changes/my-org"
DAILY = {"type": "daily", "hour_utc": 9}


async def ask(client: Client, since: str | None = None, path: str = CHANGES, **query: Any) -> dict[str, Any]:
    """Ask what has changed."""
    answer = await client.get(path, params={**query, **({"since": since} if since else {})})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture
async def ids(client: Client) -> dict[str, int]:
    """Two routines, by name."""
    return {
        name: (await client.post(ROUTINES, json={"name": name, "cadence": DAILY})).json()["id"]
        for name in ("one", "other")
    }


async def test_the_first_answer_has_only_a_cursor(client: Client, ids: dict[str, int]) -> None:
    first = await ask(client)
    assert (first["is_whole"], first["routines"], first["deleted"]) == (True, [], [])
    second = await ask(client, first["cursor"])
    assert (second["is_whole"], second["routines"], second["deleted"]) == (True, [], [])
    assert second["as_of"] > first["as_of"]


async def changed(client: Client, since: str, **query: Any) -> list[str]:
    """Return the names of the routines that have changed."""
    found = await ask(client, since, **query)
    assert found["is_whole"]
    return [each["name"] for each in found["routines"]]


async def begin(client: Client) -> str:
    return (await ask(client))["cursor"]


async def fire(connection: Connection, name: str) -> int:
    """Let a routine come due, and return its run."""
    await connection.execute(
        "UPDATE routines.routines SET next_run_at = now() - interval '1 s' WHERE name = %s", [name]
    )
    await tick(connection, batch_size=10, **CATCHUP)
    return await value(connection, "SELECT max(id) FROM routines.trajectories")  # pyright: ignore[reportReturnType]


async def set_status(connection: Connection, run: int, status: str) -> None:
    ended = "NULL" if status == "running" else "now()"
    lease = "now() + interval '1 minute'" if status == "running" else "NULL"
    await connection.execute(
        f"UPDATE routines.trajectories SET status = '{status}', ended_at = {ended}, lease_expires_at = {lease}, "
        f"started_at = coalesce(started_at, now()), fence = fence + 1 WHERE id = {run}"
    )


async def test_a_person_changes_a_routine(client: Client, ids: dict[str, int]) -> None:
    since = await begin(client)
    await client.patch(f"{ROUTINES}/one", json={"cadence": {"type": "hourly"}})
    found = await ask(client, since)
    assert [each["cadence"]["type"] for each in found["routines"]] == ["hourly"]
    assert await changed(client, found["cursor"]) == []
    await client.post(f"{ROUTINES}/other/pause")
    await client.post(ROUTINES, json={"name": "third", "cadence": DAILY})
    assert await changed(client, found["cursor"]) == ["other", "third"]
    since = await begin(client)
    await client.delete(f"{ROUTINES}/other")
    found = await ask(client, since)
    assert (found["routines"], found["deleted"]) == ([], [ids["other"]])


async def test_a_slot_and_each_turn_of_its_run_are_changes(
    client: Client, connection: Connection, ids: dict[str, int]
) -> None:
    since = await begin(client)
    run = await fire(connection, "one")
    assert await changed(client, since) == ["one"]
    for status in ("running", "completed"):
        since = await begin(client)
        assert await changed(client, since) == []
        await set_status(connection, run, status)
        assert await changed(client, since) == ["one"]
        assert await changed(client, since, routine=ids["one"]) == ["one"]
        assert await changed(client, since, routine=ids["other"]) == []


async def test_a_skip_and_a_run_now_are_changes(client: Client, connection: Connection, ids: dict[str, int]) -> None:
    await fire(connection, "one")
    since = await begin(client)
    await connection.execute("UPDATE routines.trajectories SET scheduled_for = scheduled_for - interval '1 day'")
    since = await begin(client)
    await fire(connection, "one")
    assert await value(connection, "SELECT reason FROM routines.skips") == "overlap"
    assert await changed(client, since) == ["one"]
    since = await begin(client)
    await client.post(f"{ROUTINES}/other/run-now")
    assert await changed(client, since) == ["other"]


async def test_what_commits_late_is_in_the_next_answer(
    client: Client, connection: Connection, database: Database, ids: dict[str, int]
) -> None:
    """A transaction that began before an answer and ends after it, while others come and go."""
    run = await fire(connection, "one")
    await set_status(connection, run, "running")
    async with await psycopg.AsyncConnection.connect(database.url) as late:
        await late.execute(
            """UPDATE routines.trajectories SET status = 'completed', ended_at = now(), lease_expires_at = NULL
               WHERE id = %s""",
            [run],
        )
        await client.patch(f"{ROUTINES}/other", json={"cadence": {"type": "hourly"}})
        between = await ask(client)
        assert await changed(client, between["cursor"]) in ([], ["other"])
        await late.commit()
    assert "one" in await changed(client, between["cursor"])
    assert await changed(client, between["cursor"], routine=ids["one"]) == ["one"]


async def test_a_run_of_a_deleted_routine_and_one_without_a_routine_are_left_out(
    client: Client, connection: Connection, ids: dict[str, int]
) -> None:
    run = await fire(connection, "one")
    alone = (await client.post("/api/v1/run/my-org/echo", json={})).json()["trajectory_id"]
    await client.delete(f"{ROUTINES}/one")
    since = await begin(client)
    for each in (run, alone):
        await set_status(connection, each, "running")
        await set_status(connection, each, "failed")
    assert await changed(client, since) == []


async def test_too_many_changes_and_an_old_cursor_ask_to_read_everything(
    client: Client, connection: Connection, ids: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await fire(connection, "one")
    since = await begin(client)
    await client.patch(f"{ROUTINES}/one", json={"cadence": {"type": "hourly"}})
    await client.patch(f"{ROUTINES}/other", json={"cadence": {"type": "hourly"}})
    monkeypatch.setattr(changes, "MOST_CHANGES", 1)
    assert (await ask(client, since))["is_whole"] is False
    monkeypatch.undo()
    await set_status(connection, run, "running")
    await set_status(connection, run, "completed")
    monkeypatch.setattr(changes, "MOST_ENDED_RUNS", 1)
    assert (await ask(client, since))["is_whole"] is False
    monkeypatch.undo()
    moment = msgspec.json.decode(base64.urlsafe_b64decode(since), type=Moment)
    for other in (Moment(moment.xid, moment.at - timedelta(hours=1)), Moment(moment.xid + 10**9, moment.at)):
        cursor = base64.urlsafe_b64encode(msgspec.json.encode(other)).decode()
        found = await ask(client, cursor)
        assert (found["is_whole"], found["routines"]) == (False, [])
        assert (await ask(client, found["cursor"]))["is_whole"]


@pytest.mark.parametrize(
    "since", ["x", "WzFd", "WyJhIiwiYiJd", "Wy0xLCAiMDAwMS0wMS0wMVQwMDowMDowMFoiXQ==", "W10=", "bnVsbA=="]
)
async def test_a_cursor_that_is_none_is_refused_or_unknown(client: Client, ids: dict[str, int], since: str) -> None:
    answer = await client.get(CHANGES, params={"since": since})
    assert answer.status_code == 400 or answer.json()["is_whole"] is False, answer.text
    if answer.status_code == 400:
        assert "since" in answer.json()["detail"]


async def test_nothing_of_another_collection_is_a_change(
    client: Client, connection: Connection, ids: dict[str, int]
) -> None:
    since = await begin(client)
    run = await fire(connection, "one")
    await set_status(connection, run, "running")
    await client.delete(f"{ROUTINES}/other")
    stranger = {"Authorization": f"Bearer {await make_key(connection, 'theirs')}"}
    for query in ({}, {"routine": ids["one"]}, {"routine": ids["other"]}):
        answer = await client.get("/api/v1/db/changes/theirs", params={"since": since, **query}, headers=stranger)
        assert answer.status_code == 200
        assert (answer.json()["routines"], answer.json()["deleted"]) == ([], [])
    own = f"/api/v1/db/trajectory/my-org/echo/{run}/changes"
    for path in (own, own.replace("my-org", "theirs"), CHANGES):
        assert (await client.get(path, params={"since": since}, headers=stranger)).status_code == 404


async def test_a_run_says_whether_it_has_come_further(client: Client, connection: Connection) -> None:
    run = (await client.post("/api/v1/run/my-org/echo", json={})).json()["trajectory_id"]
    path = f"/api/v1/db/trajectory/my-org/echo/{run}/changes"
    first = await ask(client, path=path)
    assert first["has_changed"] is False
    assert (await ask(client, first["cursor"], path))["has_changed"] is False
    writes = [
        """UPDATE routines.trajectories SET status = 'running', started_at = now(), lease_expires_at = now()
           WHERE id = %s""",
        """INSERT INTO routines.steps (trajectory_id, name, position, fence, status, activity, inputs)
           VALUES (%s, 'one', 0, 0, 'running', 'text_echo', '{}')""",
        "UPDATE routines.steps SET status = 'completed', ended_at = now(), outputs = '{}' WHERE trajectory_id = %s",
        """INSERT INTO routines.trajectories
               (collection_id, task_id, task_version, trigger, init_params, parent_id, parent_step)
           SELECT collection_id, task_id, 1, 'api', '{}', id, 'one' FROM routines.trajectories WHERE id = %s""",
    ]
    for write in writes:
        before = await ask(client, path=path)
        await connection.execute(write, [run])  # pyright: ignore[reportArgumentType]
        assert (await ask(client, before["cursor"], path))["has_changed"] is True, write
    for other in (path.replace("echo", "none"), path.replace(str(run), "999"), path.replace(str(run), "x")):
        assert (await client.get(other)).status_code == 404
