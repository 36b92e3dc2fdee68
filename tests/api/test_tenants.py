"""For every route: other collections are invisible, ended keys are refused, and the feature flag hides its routes.

The routes are read from the application itself, so a new route without a row fails.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any, NamedTuple

import httpx
import psycopg
import pytest
from litestar.routes import HTTPRoute
from litestar.testing import AsyncTestClient

from routines_api.app import METHODS, Api, create_app
from routines_core.db import Connection
from routines_core.db.keys import checksum, revoke_key
from routines_core.db.statements import Statement
from support.rows import Database, api_settings, make_key
from support.sampling import sample
from support.serving import TASK, ApiProcess, api_process, contents, copy_of, new_key

Client = AsyncTestClient[Api]
ROUTINE = {"name": "new", "cadence": {"type": "manual"}}
NIGHTLY = {"type": "cron", "expression": "30 2 * * *", "timezone": "Europe/Berlin"}
HOURLY = {"cadence": {"type": "hourly"}}
PAST = {"from": "2026-05-04T00:00:00Z", "to": "2026-05-05T00:00:00Z"}
YEAR = {"from": "2027-01-01T00:00:00Z", "to": "2028-01-01T00:00:00Z"}
OWN = {"collection": "mine", "task": "echo", "name": "kept", "trajectory_id": "1", "delivery_id": "1"}
OWN |= {"feed_id": "2", "workflow_id": "flow-mine-echo--1", "activity_name": "text_echo", "calendar": "kept"}
OWN |= {"revision": "1", "version": "1", "rule": "kept", "backfill_id": "2"}
ALERT_RULE = {"on": ["failed"], "webhook_url": "https://example.com/", "webhook_secret": "secret"}


class Row(NamedTuple):
    """A valid call of a route."""

    method: str
    path: str
    body: dict[str, Any] | None = None


ROWS = [
    Row("GET", "/api/v1/collections"),
    Row("GET", "/api/v1/collections/{collection}"),
    Row("POST", "/api/v1/tasks/{collection}", {"name": "new", "workflow": TASK}),
    Row("GET", "/api/v1/tasks/{collection}"),
    Row("GET", "/api/v1/tasks/{collection}/{task}"),
    Row("PUT", "/api/v1/tasks/{collection}/{task}", {"description": "changed"}),
    Row("DELETE", "/api/v1/tasks/{collection}/{task}"),
    Row("GET", "/api/v1/tasks/{collection}/{task}/init-params-schema"),
    Row("GET", "/api/v1/tasks/{collection}/{task}/versions"),
    Row("GET", "/api/v1/tasks/{collection}/{task}/versions/{version}"),
    Row("GET", "/api/v1/db/trajectories/{collection}/{task}"),
    Row("GET", "/api/v1/db/trajectory/{collection}/{task}/{trajectory_id}"),
    Row("GET", "/api/v1/db/trajectory/{collection}/{task}/{trajectory_id}/changes"),
    Row("GET", "/api/v1/collections/{collection}/environment"),
    Row("GET", "/api/v1/collections/{collection}/limits"),
    Row("PATCH", "/api/v1/collections/{collection}/environment", {"environment_variables": {"A": "secret"}}),
    Row("POST", "/api/v1/run/{collection}/{task}", {"init_params": {}}),
    Row("POST", "/api/v1/run-sync/{collection}/{task}", {"secret_params": {"A": "secret"}}),
    Row("POST", "/api/v1/rerun/{collection}/{task}/{trajectory_id}", {"secret_params": {"A": "secret"}}),
    Row("GET", "/api/v1/db/stats/{collection}/{task}"),
    Row("POST", "/api/v1/trajectory/{collection}/{task}/statuses", {"{trajectory_id}": "cancelled"}),
    Row("POST", "/api/v1/trajectory/{collection}/{task}/{trajectory_id}/labels", {"key": "a", "value": 1}),
    Row("GET", "/api/v1/workflows-logs/{workflow_id}"),
    Row("GET", "/api/v1/step-templates"),
    Row("GET", "/api/v1/step-templates/{activity_name}"),
    Row("POST", "/api/v1/ics/{collection}", {"task": "echo", "routine": "kept"}),
    Row("GET", "/api/v1/ics/{collection}"),
    Row("DELETE", "/api/v1/ics/{collection}/{feed_id}"),
    Row("GET", "/api/v1/routines/{collection}"),
    Row("POST", "/api/v1/routines/{collection}/{task}", ROUTINE),
    Row("GET", "/api/v1/routines/{collection}/{task}"),
    Row("GET", "/api/v1/routines/{collection}/{task}/{name}"),
    Row("PATCH", "/api/v1/routines/{collection}/{task}/{name}", {"paused": True}),
    Row("DELETE", "/api/v1/routines/{collection}/{task}/{name}"),
    Row("POST", "/api/v1/routines/{collection}/{task}/{name}/pause"),
    Row("POST", "/api/v1/routines/{collection}/{task}/{name}/resume"),
    Row("POST", "/api/v1/routines/{collection}/{task}/{name}/run-now"),
    Row("GET", "/api/v1/routines/{collection}/{task}/{name}/runs"),
    Row("GET", "/api/v1/routines/{collection}/{task}/{name}/occurrences"),
    Row("GET", "/api/v1/routines/{collection}/{task}/{name}/why?at=2026-05-04T09:00:00Z"),
    Row("GET", "/api/v1/routines/{collection}/{task}/{name}/next"),
    Row("GET", "/api/v1/routines/{collection}/{task}/{name}/gaps?include=failed"),
    Row("GET", "/api/v1/db/outcomes/{collection}?ids=1,2"),
    Row("GET", "/api/v1/db/changes/{collection}?routine=1"),
    Row("GET", "/api/v1/cadence-types/{collection}"),
    Row("POST", "/api/v1/cadence-preview/{collection}", {"cadence": {"type": "hourly"}}),
    Row("POST", "/api/v1/cadence-preview/{collection}", {"cadence": NIGHTLY, **YEAR, "task": "echo"}),
    Row("POST", "/api/v1/cadence-suggest/{collection}", {"cadence": {"type": "hourly"}}),
    Row("GET", "/api/v1/schedule-load/{collection}"),
    Row("GET", "/api/v1/report/{collection}"),
    Row("GET", "/api/v1/timeline/{collection}?ids=1,2&q=echo"),
    Row("GET", "/api/v1/audit/{collection}"),
    Row("GET", "/api/v1/routines/{collection}/{task}/{name}/revisions"),
    Row("POST", "/api/v1/routines/{collection}/{task}/{name}/revisions/{revision}/restore"),
    Row("POST", "/api/v1/routines/{collection}/{task}/{name}/backfills", {**PAST, "dry_run": True}),
    Row("GET", "/api/v1/routines/{collection}/{task}/{name}/backfills"),
    Row("GET", "/api/v1/routines/{collection}/{task}/{name}/backfills/{backfill_id}"),
    Row("DELETE", "/api/v1/routines/{collection}/{task}/{name}/backfills/{backfill_id}"),
    Row("GET", "/api/v1/calendars/{collection}"),
    Row("GET", "/api/v1/calendars/{collection}/{calendar}"),
    Row("PUT", "/api/v1/calendars/{collection}/{calendar}", {"days": [{"from": "2026-12-24"}]}),
    Row("DELETE", "/api/v1/calendars/{collection}/{calendar}"),
    Row("GET", "/api/v1/alert-rules/{collection}"),
    Row("GET", "/api/v1/alert-rules/{collection}/{rule}"),
    Row("PUT", "/api/v1/alert-rules/{collection}/{rule}", ALERT_RULE),
    Row("DELETE", "/api/v1/alert-rules/{collection}/{rule}"),
    Row("GET", "/api/v1/alerts/{collection}?state=open"),
    Row("GET", "/api/v1/routines/{collection}/{task}/{name}/deliveries"),
    Row("POST", "/api/v1/routines/{collection}/{task}/{name}/deliveries/{delivery_id}/redeliver"),
]
OPEN = {("GET", path) for path in ("/api/v1/health", "/openapi.json", "/docs", "/metrics", "/livez", "/readyz", "/")}
"""Answered without a key."""
ROW_IDS = [f"{row.method} {row.path}" for row in ROWS]
_OF_ROUTINES = (
    "/api/v1/routines",
    "/api/v1/db/outcomes",
    "/api/v1/db/changes",
    "/api/v1/cadence-",
    "/api/v1/schedule-load",
    "/api/v1/report",
    "/api/v1/timeline",
    "/api/v1/audit",
    "/api/v1/calendars",
    "/api/v1/ics",
    "/api/v1/alert",
)
HIDDEN = [row for row in ROWS if row.path.startswith(_OF_ROUTINES) or row.path.endswith("init-params-schema")]


def routes_of(app: Api) -> set[tuple[str, str]]:
    """Return the method and path of every route. OPTIONS is left out, since it is refused before routing."""
    return {
        (method, route.path_format)
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for method in route.methods
        if method != "OPTIONS"
    }


def test_each_route_of_the_application_has_a_row() -> None:
    routes = routes_of(create_app(api_settings(), ""))
    assert routes == {(row.method, row.path.partition("?")[0]) for row in ROWS} | OPEN


# --- foreign and missing ----------------------------------------------------------------------------------------------


@pytest.fixture
async def client(connection: Connection, database: Database) -> AsyncGenerator[Client]:
    """A client with a key for the collection `mine`; the collection `theirs` has the same names."""
    async with AsyncTestClient(create_app(api_settings(run_sync_seconds=0), database.url)) as opened:
        for collection in ("theirs", "mine"):
            opened.headers["Authorization"] = f"Bearer {await make_key(connection, collection)}"
            await fill(opened, collection)
        yield opened


async def fill(client: Client, collection: str) -> None:
    """Create the task `echo` with the routine `kept`, a run, a feed and a backfill, and a task that is deleted.

    Those of the first collection have the id 1, those of the second 2. Create the calendar `kept`, and another one
    that is deleted; the same with alert rules.
    """
    for calendar in ("kept", "gone"):
        assert (await client.put(f"/api/v1/calendars/{collection}/{calendar}", json={"days": []})).status_code == 200
    assert (await client.delete(f"/api/v1/calendars/{collection}/gone")).status_code == 204
    for rule in ("kept", "gone"):
        assert (await client.put(f"/api/v1/alert-rules/{collection}/{rule}", json=ALERT_RULE)).status_code == 200
    assert (await client.delete(f"/api/v1/alert-rules/{collection}/gone")).status_code == 204
    for task in ("echo", "gone"):
        made = await client.post(f"/api/v1/tasks/{collection}", json={"name": task, "workflow": TASK})
        assert made.status_code == 201
        for name in ("kept", "gone"):
            routines = f"/api/v1/routines/{collection}/{task}"
            assert (await client.post(routines, json={**HOURLY, "name": name})).status_code == 201
        assert (await client.delete(f"/api/v1/routines/{collection}/{task}/gone")).status_code == 204
    assert (await client.post(f"/api/v1/routines/{collection}/echo/kept/run-now")).status_code == 200
    assert (await client.post(f"/api/v1/routines/{collection}/echo/kept/backfills", json=PAST)).status_code == 201
    assert (await client.post(f"/api/v1/ics/{collection}", json={"task": "echo"})).status_code == 201
    assert (await client.delete(f"/api/v1/routines/{collection}/gone/kept")).status_code == 204
    assert (await client.delete(f"/api/v1/tasks/{collection}/gone")).status_code == 200


async def run_of(client: Client, collection: str, connection: Connection) -> str:
    cursor = await connection.execute(
        "SELECT trajectory_id::text FROM routines.trajectory_details WHERE name = %s", [f"{collection}/echo"]
    )
    row = await cursor.fetchone()
    assert row
    return row[0]


async def webhook_of(run: str, connection: Connection) -> str:
    """Insert a webhook delivery of this run that was given up, and return its id."""
    cursor = await connection.execute(
        """INSERT INTO routines.webhook_deliveries (collection_id, trajectory_id, routine_id, event_status, url,
                                                    next_attempt_at, give_up_reason)
           SELECT collection_id, id, triggered_by_routine_id, 'completed', 'https://example.com', NULL, 'it failed'
           FROM routines.trajectories WHERE id = %s::bigint RETURNING id::text""",
        [run],
    )
    row = await cursor.fetchone()
    assert row
    return row[0]


class Counted(NamedTuple):
    """An answer without its Date header, and the statements executed for it."""

    status: int
    headers: list[tuple[str, str]]
    content: bytes
    statements: list[str]


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the statements executed, in order."""
    names: list[str] = []
    execute: Callable[..., Coroutine[Any, Any, None]] = Statement._execute

    async def noted(statement: Statement[Any], *arguments: Any) -> None:
        # The process counts towards limits when its last count is old, whatever the request.
        if statement.name not in {"limits.measure", "limits.take_runs"}:
            names.append(statement.name)
        await execute(statement, *arguments)

    monkeypatch.setattr(Statement, "_execute", noted)
    return names


async def ask(client: Client, row: Row, names: dict[str, str], executed: list[str]) -> Counted:
    executed.clear()
    names = {"activity_name": "none", **names, "workflow_id": f"flow-x--{names['trajectory_id']}"}
    body = row.body and {key.format(**names): given for key, given in row.body.items()}
    answer = await client.request(row.method, row.path.format(**names), json=body)
    headers = [(name, text) for name, text in answer.headers.items() if name != "date"]
    return Counted(answer.status_code, headers, answer.content, list(executed))


async def test_names_in_another_collection_answer_like_names_that_do_not_exist(
    client: Client, connection: Connection, executed: list[str]
) -> None:
    """Every route gives the same bytes after the same statements."""
    run = await run_of(client, "theirs", connection)
    ids = {"trajectory_id": run, "delivery_id": await webhook_of(run, connection)}
    ids |= {"feed_id": "1", "revision": "1", "version": "1", "backfill_id": "1"}
    nowhere = {
        "collection": "nowhere",
        "task": "none",
        "name": "none",
        "calendar": "none",
        "rule": "none",
        **dict.fromkeys(ids, "987654321"),
    }
    theirs = {"collection": "theirs", "task": "echo", "name": "kept", "calendar": "kept", "rule": "kept", **ids}
    deleted = {"collection": "theirs", "task": "gone", "name": "gone", "calendar": "gone", "rule": "gone", **ids}
    for row in [row for row in ROWS if "{" in row.path]:
        random = await ask(client, row, nowhere, executed)
        assert random.status == 404
        assert (row, await ask(client, row, theirs, executed)) == (row, random)
        assert (row, await ask(client, row, deleted, executed)) == (row, random)


@pytest.mark.parametrize(
    "segment", ["task", "name", "trajectory_id", "delivery_id", "feed_id", "backfill_id", "calendar"]
)
async def test_in_the_own_collection_foreign_deleted_and_random_names_answer_alike(
    client: Client, connection: Connection, executed: list[str], segment: str
) -> None:
    run, their_run = await run_of(client, "mine", connection), await run_of(client, "theirs", connection)
    own = OWN | {"trajectory_id": run, "delivery_id": await webhook_of(run, connection)}
    other = {"delivery_id": await webhook_of(their_run, connection), "feed_id": "1", "backfill_id": "1"}
    theirs = other.get(segment, their_run)
    named = [row for row in ROWS if f"{{{segment}}}" in row.path.replace("workflow_id", "trajectory_id")]
    for row in [row for row in named if (row.method, segment) != ("PUT", "calendar")]:  # which creates one
        random = await ask(client, row, {**own, segment: "987654321"}, executed)
        assert random.status == 404
        for name in ("gone", theirs):
            assert (row, await ask(client, row, {**own, segment: name}, executed)) == (row, random)


@pytest.mark.parametrize("row", ROWS, ids=ROW_IDS)
async def test_every_route_serves_the_own_collection(
    client: Client, connection: Connection, executed: list[str], row: Row
) -> None:
    """So the 404s above have no other cause. 409 is the answer for a task that has routines, and for an active run."""
    run = await run_of(client, "mine", connection)
    own = OWN | {"trajectory_id": run, "delivery_id": await webhook_of(run, connection)}
    answer = await ask(client, row, own, executed)
    is_refused = (row.method == "DELETE" and "/tasks/" in row.path) or "/rerun/" in row.path
    assert answer.status in ({409} if is_refused else {200, 201, 202, 204})


async def test_a_request_to_another_collection_answers_404_before_its_body_and_query_are_checked(
    client: Client,
) -> None:
    foreign = await client.post(
        "/api/v1/routines/theirs/echo?x=1", content=b"{", headers={"Content-Type": "text/plain"}
    )
    assert foreign.status_code == 404


# --- revoked and expired keys -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(server_url: str, template: str) -> Generator[tuple[Database, list[ApiProcess]]]:
    """A database with two API processes."""
    with copy_of(server_url, template) as shared, api_process(shared.url) as one, api_process(shared.url) as two:
        with one.client(new_key(shared, "mine")) as client:
            assert client.post("/api/v1/tasks/mine", json={"name": "echo", "workflow": TASK}).status_code == 201
            assert client.post("/api/v1/routines/mine/echo", json={**ROUTINE, "name": "kept"}).status_code == 201
            assert client.post("/api/v1/routines/mine/echo/kept/run-now").status_code == 200
        yield shared, [one, two]


def ends_by_revocation(database: Database, key: str) -> None:
    asyncio.run(_revoke(database, int(key.split("_")[1])))


async def _revoke(database: Database, key_id: int) -> None:
    async with await psycopg.AsyncConnection.connect(database.url, autocommit=True) as connection:
        await revoke_key(connection, key_id)


def ends_by_expiry(database: Database, key: str) -> None:
    with psycopg.connect(database.url) as connection:
        connection.execute("UPDATE routines.api_keys SET expires_at = now() WHERE id = %s", [int(key.split("_")[1])])


@pytest.mark.parametrize("end", sample([ends_by_revocation, ends_by_expiry], 1))
def test_an_ended_key_known_to_both_processes_is_refused_at_once_by_every_route(
    served: tuple[Database, list[ApiProcess]], end: Callable[[Database, str], None]
) -> None:
    database, processes = served
    key = new_key(database, "mine")
    clients = [process.client(key) for process in processes]
    for client in clients:
        assert client.get("/api/v1/routines/mine/echo/kept").status_code == 200
    end(database, key)
    before = contents(database)
    for client in clients:
        for row in ROWS:
            answer = client.request(row.method, row.path.format(**OWN), json=row.body)
            assert (row, answer.status_code) == (row, 401)
            assert answer.headers["www-authenticate"] == "Bearer"
        # Missing paths, foreign paths and broken bodies are answered alike.
        assert client.get("/api/v1/routines/mine/echo/none").status_code == 401
        assert client.get("/api/v1/routines/theirs/echo").status_code == 401
        assert client.post("/api/v1/routines/mine/echo", content=b"{").status_code == 401
        client.close()
    assert contents(database) == before


def test_all_invalid_keys_are_refused_with_the_same_bytes(served: tuple[Database, list[ApiProcess]]) -> None:
    database, [process, _] = served
    expired = new_key(database, "mine", expires_in_seconds=0)
    wrong = expired[:-7] + ("A" if expired[-7] != "A" else "B")  # with a correct checksum, which detects typing errors
    tokens = [expired, wrong + checksum(wrong), "rtn_999_" + "a" * 43, "nonsense", ""]
    answers = [answer_without_date(process.client(token).get("/api/v1/routines/mine")) for token in tokens]
    assert answers[0][0] == 401
    assert all(answer == answers[0] for answer in answers)


# --- the feature flag -------------------------------------------------------------------------------------------------


def answer_without_date(answer: httpx.Response) -> tuple[int, list[tuple[str, str]], bytes]:
    return (
        answer.status_code,
        # `connection` depends on whether the server has read the body yet, which is a matter of timing.
        sorted((name, text) for name, text in answer.headers.items() if name not in {"date", "connection"}),
        answer.content,
    )


@pytest.fixture(scope="module")
def without(served: tuple[Database, list[ApiProcess]]) -> Generator[tuple[ApiProcess, str]]:
    """A process with the flag off, and a key."""
    database, _ = served
    key = new_key(database, "mine")
    with api_process(database.url, enable_routines=False) as process:
        yield process, key


@pytest.mark.parametrize("keyed", [True, False], ids=["with a key", "without"])
def test_with_the_flag_off_every_method_of_every_routine_route_answers_like_an_unknown_path(
    without: tuple[ApiProcess, str], served: tuple[Database, list[ApiProcess]], *, keyed: bool
) -> None:
    process, key = without
    before = contents(served[0])
    with process.client(key if keyed else "") as client:
        for method in [*sorted(METHODS), "HEAD", "OPTIONS", "TRACE", "PROPFIND"]:
            unknown = answer_without_date(client.request(method, "/api/v1/nothing/at/all"))
            assert unknown[0] == 404
            for row in HIDDEN:
                body = None if method in {"HEAD", "TRACE"} else row.body
                hidden = client.request(method, row.path.format(**OWN), json=body)
                assert (row, method, answer_without_date(hidden)) == (row, method, unknown)
    assert contents(served[0]) == before


def test_with_the_flag_off_the_description_does_not_mention_routines(without: tuple[ApiProcess, str]) -> None:
    process, _ = without
    with process.client() as client:
        described = client.get("/openapi.json").json()
    paths = {row.path for row in HIDDEN}
    assert not paths & set(described["paths"])
    assert set(described["paths"]) == {row.path for row in ROWS} - paths | {"/api/v1/health"}
    assert not [name for name in described["components"]["schemas"] if "Routine" in name]
    assert "/routines" not in json.dumps(described)
