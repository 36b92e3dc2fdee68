"""run and run-sync with JSON, forms and files; refused requests leave nothing behind."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from routines_api.app import CONNECTIONS, Api, create_app
from routines_core.db import Connection, open_pool
from routines_core.db.keys import revoke_key
from routines_core.errors import InvalidError
from routines_core.files.opening import open_file_store
from routines_core.files.store import FileStore
from support.rows import Database, api_settings, make_key, value

RUN, SYNC = "/api/v1/run/my-org/echo", "/api/v1/run-sync/my-org/echo"
WORKFLOW = {
    "init_params": {"zeta": "z", "a": 1},
    "steps": ["one"],
    "step_configs": {"one": {"activity": "text_echo", "text": "x"}},
}
FILES = [("files", ("a.txt", b"first")), ("files", ("../../b.txt", b"second"))]
COUNT = "SELECT count(*) FROM routines.trajectories"
LIMITS = {"max_files": 2, "max_file_bytes": 1000, "max_upload_bytes": 4000, "max_body_bytes": 1024}


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return open_file_store(api_settings(data_dir=tmp_path))


class Client(httpx.AsyncClient):
    """A client in the event loop of the test, so that requests can wait concurrently. Litestar's own would block."""

    def __init__(self, app: Api, key: str) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        super().__init__(transport=httpx.ASGITransport(app), base_url="http://test", headers=headers, timeout=30)
        self.app = app


@asynccontextmanager
async def serving(connection: Connection, database: Database, **settings: Any) -> AsyncGenerator[Client]:
    app = create_app(api_settings(**settings), database.url)
    async with (
        open_pool(database.url, "routines-api", size=CONNECTIONS) as app.state.pool,
        Client(app, await make_key(connection, "my-org")) as opened,
    ):
        made = await opened.post("/api/v1/tasks/my-org", json={"name": "echo", "workflow": WORKFLOW})
        assert made.status_code == 201
        yield opened


@pytest.fixture
async def client(connection: Connection, database: Database, tmp_path: Path) -> AsyncGenerator[Client]:
    async with serving(connection, database, data_dir=tmp_path, run_sync_seconds=0.4, **LIMITS) as opened:
        yield opened


@pytest.fixture
async def patient(connection: Connection, database: Database, tmp_path: Path) -> AsyncGenerator[Client]:
    """A client of a service whose run-sync waits for a long time."""
    async with serving(connection, database, data_dir=tmp_path, run_sync_seconds=60) as opened:
        yield opened


async def started(connection: Connection, runs: int = 1) -> None:
    """Wait until there are this many runs."""
    async with asyncio.timeout(20):
        while await value(connection, COUNT) != runs:  # noqa: ASYNC110 - the event happens in the database
            await asyncio.sleep(0.01)


async def stored(store: FileStore) -> list[str]:
    return [found.path async for found in store.stored()]


async def end(connection: Connection, status: str = "completed") -> None:
    """End every run as a worker would, with the outputs of one step."""
    await connection.execute(
        """INSERT INTO routines.steps
               (trajectory_id, name, position, fence, status, activity, inputs, outputs, ended_at)
           SELECT id, 'one', 0, 1, 'completed', 'text_echo', '{}', '{"text": "done"}', now()
           FROM routines.trajectories"""
    )
    await connection.execute(
        "UPDATE routines.trajectories SET status = %s, started_at = created_at, ended_at = now()", [status]
    )


@pytest.mark.parametrize(
    "sent",
    [
        {"json": {"init_params": {"a": 2}}},
        {"data": {"init_params": '{"a": 2}', "webhook_url": ""}},
        {"files": [("init_params", (None, b'{"a": 2}'))]},
        {"files": [("init_params", ("blob", b'{"a": 2}', "application/json")), ("files", ("", b""))]},
    ],
    ids=["JSON", "urlencoded", "multipart", "multipart of a browser"],
)
async def test_run_answers_at_once_with_the_started_run(client: Client, sent: dict[str, Any]) -> None:
    answer = await client.post(RUN, **sent)
    body = answer.json()
    assert (answer.status_code, body["result"], body["trajectory"]["status"]) == (200, {}, "pending")
    assert body["workflow_id"] == f"flow-my-org-echo--{body['trajectory_id']}"
    assert body["trajectory"]["init_params"] == {"zeta": "z", "a": 2}
    assert (body["trajectory"]["trigger"], body["trajectory"]["triggered_by_routine_id"]) == ("api", None)


@pytest.mark.parametrize("sent", [{}, {"json": {}}, {"data": {}}])
async def test_a_run_without_fields_uses_the_defaults_of_the_task(client: Client, sent: dict[str, Any]) -> None:
    body = (await client.post(RUN, **sent)).json()
    assert body["trajectory"]["init_params"] == {"zeta": "z", "a": 1}


async def test_files_are_stored_and_the_run_gets_their_paths(client: Client, store: FileStore) -> None:
    answer = await client.post(RUN, files=FILES, data={"init_params": '{"a": 5}'})
    assert answer.status_code == 200, answer.text
    params = answer.json()["trajectory"]["init_params"]
    assert params["a"] == 5
    assert [path[33:] for path in params["file_paths"]] == ["a.txt", "b.txt"]
    assert [await store.read(1, path) for path in params["file_paths"]] == [b"first", b"second"]


async def test_secrets_are_encrypted_never_shown_and_deleted_when_the_run_has_ended(
    client: Client, connection: Connection
) -> None:
    secrets = {"secret_params": {"TOKEN": "s3cret"}, "webhook_url": "https://x.org/", "webhook_secret": "w3bhook"}
    answer = await client.post(RUN, json=secrets)
    assert "s3cret" not in answer.text
    assert "w3bhook" not in answer.text
    assert await value(connection, "SELECT secret_refs ? 'TOKEN' FROM routines.trajectories") is True
    assert await value(connection, "SELECT count(*) FROM routines.secrets") == 2
    await end(connection)
    assert await value(connection, "SELECT count(*) FROM routines.secrets WHERE kind = 'secret_param'") == 0


REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "an undeclared key": ({"json": {"init_params": {"nope": 1}}}, 400, "init_params"),
    "an unknown field": ({"json": {"init_parms": {}}}, 400, "init_parms"),
    "an unknown field of a form": ({"data": {"init_parms": "{}"}}, 400, "init_parms"),
    "an unknown field of multipart": ({"files": [("file", ("a", b"x"))]}, 400, "file"),
    "invalid JSON in a form": ({"data": {"init_params": "{"}}, 400, "init_params"),
    "an array in a form": ({"data": {"init_params": "[]"}}, 400, "init_params"),
    "a field sent twice": ({"content": b"webhook_secret=a&webhook_secret=b"}, 400, "webhook_secret"),
    "a webhook of another scheme": ({"data": {"webhook_url": "ftp://x.org/"}}, 400, "webhook_url"),
    "a NUL in a form": ({"content": b"webhook_url=https://x.org/%00"}, 400, "webhook_url"),
    "invalid UTF-8 in a form": ({"content": b"webhook_secret=%ff"}, 400, ""),
    "a semicolon in a form": ({"content": b"a;b"}, 400, ""),
    "a mask": ({"json": {"secret_params": {"A": "********"}}}, 400, "secret_params"),
    "files in JSON": ({"json": {"files": ["a"]}}, 400, "files"),
    "files in a form": ({"data": {"files": "a"}}, 400, "files"),
    "files that are a text": ({"files": [("files", (None, b"a"))]}, 400, "files"),
    "paths together with files": (
        {"files": FILES, "data": {"init_params": '{"file_paths": []}'}},
        400,
        "init_params.file_paths",
    ),
    "an undeclared key with files": ({"files": FILES, "data": {"init_params": '{"no": 1}'}}, 400, "init_params"),
    "invalid JSON after files": ({"files": [*FILES, ("init_params", (None, b"{"))]}, 400, "init_params"),
    "three files": ({"files": [*FILES, ("files", ("c", b""))]}, 413, ""),
    "a file too large": ({"files": [FILES[0], ("files", ("c", b"x" * 1001))]}, 413, ""),
    "a form too large": ({"files": [*FILES, ("webhook_url", (None, b"x" * 1025))]}, 413, ""),
    "a body too large": ({"files": [("files", ("c", b"x" * 4000))]}, 413, ""),
    "XML": ({"content": b"<a/>", "headers": {"Content-Type": "text/xml"}}, 415, ""),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_refused_request_starts_nothing_and_leaves_no_file(
    client: Client, connection: Connection, store: FileStore, case: str
) -> None:
    sent, status, field = REFUSED[case]
    if "content" in sent and "headers" not in sent:
        sent = {**sent, "headers": {"Content-Type": "application/x-www-form-urlencoded"}}
    for path in (RUN, SYNC):
        answer = await client.post(path, **sent)
        problem = answer.json()
        assert (answer.status_code, problem["errors"][0]["field"]) == (status, field), problem
    assert await value(connection, COUNT) == 0
    assert await stored(store) == []


async def test_a_form_exactly_at_the_limits_is_accepted(client: Client) -> None:
    at_limit = [("files", ("a", b"x" * 1000)), ("files", ("b", b"x" * 1000)), ("webhook_secret", (None, b"x" * 1024))]
    assert (await client.post(RUN, files=at_limit)).status_code == 200


async def test_an_undeclared_key_is_named_together_with_the_declared_ones(client: Client) -> None:
    problem = (await client.post(RUN, json={"init_params": {"nope": 1, "a": 1, "file_paths": []}})).json()
    assert problem["unknown_keys"] == ["file_paths", "nope"]
    assert "declared: zeta, a" in problem["detail"]


async def test_access_is_checked_before_a_file_is_read(client: Client, store: FileStore) -> None:
    broken = {"content": b"no form", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}
    unknown = {**broken, "headers": {**broken["headers"], "Authorization": "Bearer x"}}
    assert (await client.post(RUN, **unknown)).status_code == 401
    assert (await client.post("/api/v1/run/other/echo", **broken)).status_code == 404
    assert (await client.post("/api/v1/run/my-org/none", **broken)).status_code == 404
    assert (await client.post(RUN, **broken)).status_code == 400
    assert (await client.post("/api/v1/run/my-org/none", files=FILES)).status_code == 404
    await revoke_key_of(client)
    assert (await client.post(RUN, files=FILES)).status_code == 401
    assert await stored(store) == []


async def revoke_key_of(client: Client) -> None:
    async with client.app.state.pool.connection() as connection:
        await revoke_key(connection, int(client.headers["Authorization"].split("_")[1]))


async def test_the_same_idempotency_key_and_form_start_one_run_and_keep_one_set_of_files(
    client: Client, connection: Connection, store: FileStore
) -> None:
    headers = {"Idempotency-Key": "k"}
    answers = [await client.post(RUN, files=FILES, data={"init_params": "{}"}, headers=headers) for _ in range(3)]
    assert {answer.content for answer in answers} == {answers[0].content}
    assert answers[2].headers["idempotent-replayed"] == "true"
    assert await value(connection, COUNT) == 1
    assert sorted(await stored(store)) == sorted(answers[0].json()["trajectory"]["init_params"]["file_paths"])
    others = [("files", ("a.txt", b"first")), ("files", ("../../b.txt", b"changed"))]
    changed = await client.post(RUN, files=others, data={"init_params": "{}"}, headers=headers)
    assert changed.status_code == 409
    assert len(await stored(store)) == 2


# --- run-sync ---------------------------------------------------------------------------------------------------------


async def ends_while(client: Client, connection: Connection, status: str = "completed", **sent: Any) -> Any:
    """Call run-sync, end its run while it waits, and return its answer."""
    asked = asyncio.create_task(client.post(SYNC, **sent))
    await started(connection)
    await end(connection, status)
    return await asked


@pytest.mark.parametrize("status", ["completed", "failed"])
async def test_run_sync_answers_when_the_run_has_ended_with_the_outputs_of_its_steps(
    patient: Client, connection: Connection, status: str
) -> None:
    answer = await ends_while(patient, connection, status, json={})
    body = answer.json()
    assert (answer.status_code, body["trajectory"]["status"]) == (200, status)
    assert body["result"] == {"one": {"text": "done"}}


async def test_run_sync_answers_202_after_a_while_and_the_run_continues(client: Client, connection: Connection) -> None:
    answer = await client.post(SYNC, data={"init_params": '{"a": 3}'})
    assert (answer.status_code, answer.json()["result"]) == (202, {})
    assert await value(connection, "SELECT status FROM routines.trajectories") == "pending"


async def test_run_sync_sent_again_with_its_idempotency_key_waits_for_the_same_run(
    client: Client, connection: Connection
) -> None:
    headers = {"Idempotency-Key": "k"}
    first = await client.post(SYNC, json={}, headers=headers)
    await end(connection)
    second = await client.post(SYNC, json={}, headers=headers)
    assert (first.status_code, second.status_code) == (202, 200)
    assert first.json()["trajectory_id"] == second.json()["trajectory_id"]
    assert await value(connection, COUNT) == 1


async def test_run_sync_answers_202_at_once_if_all_seats_are_taken(client: Client) -> None:
    client.app.state.services.run_waiter.seats.size = 0
    async with asyncio.timeout(5):
        assert (await client.post(SYNC, json={})).status_code == 202


async def test_waiting_requests_hold_no_connection(patient: Client, connection: Connection) -> None:
    waiting = 40  # four times the size of the pool
    asked = [asyncio.create_task(patient.post(SYNC, json={})) for _ in range(waiting)]
    await started(connection, waiting)
    assert (await patient.get("/api/v1/tasks/my-org/echo")).status_code == 200
    await end(connection)
    answers = await asyncio.gather(*asked)
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["trajectory_id"] for answer in answers}) == waiting


async def test_a_client_that_disconnects_does_not_cancel_its_run(patient: Client, connection: Connection) -> None:
    asked = asyncio.create_task(patient.post(SYNC, json={}))
    await started(connection)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    assert await value(connection, "SELECT status FROM routines.trajectories") == "pending"


async def test_a_key_revoked_while_waiting_does_not_get_the_result(patient: Client, connection: Connection) -> None:
    asked = asyncio.create_task(patient.post(SYNC, json={}))
    await started(connection)
    await revoke_key(connection, 1)
    await end(connection)
    assert (await asked).status_code == 401


async def test_a_stored_file_cannot_be_read_by_another_collection(client: Client, store: FileStore) -> None:
    body = (await client.post(RUN, files=FILES)).json()
    with pytest.raises(InvalidError):
        await store.read(2, body["trajectory"]["init_params"]["file_paths"][0])


async def test_a_stopping_process_answers_waiting_requests_with_202(patient: Client, connection: Connection) -> None:
    asked = asyncio.create_task(patient.post(SYNC, json={}))
    await started(connection)
    patient.app.release_waiters()
    async with asyncio.timeout(10):
        assert (await asked).status_code == 202


async def test_a_traceparent_is_not_stored_while_nothing_is_traced(client: Client, connection: Connection) -> None:
    header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert (await client.post(RUN, json={}, headers={"traceparent": header})).status_code == 200
    assert await value(connection, "SELECT array_agg(traceparent) FROM routines.trajectories") == [None]
