"""Part 3 of the HTTP contract, which settles open questions: one test for each sentence."""

import asyncio
import re
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from routines_api.http.problems import PROBLEM_TYPES, TYPE_PREFIX
from routines_core.db import Connection
from routines_core.db.statements import sql_dir
from support.rows import make_key, value

Client = AsyncTestClient[Any]
BASE = "/api/v1/routines/my-org/echo"
DAILY = {"name": "r", "cadence": {"type": "daily", "hour_utc": 9}}
COUNT = "SELECT count(*) FROM routines.routines"


async def every_page(client: Client, path: str) -> list[list[dict[str, Any]]]:
    """Fetch all pages by following Link headers."""
    pages: list[list[dict[str, Any]]] = []
    following: str | None = path
    while following:
        answer = await client.get(following)
        assert answer.status_code == 200, answer.text
        pages.append(answer.json())
        link = answer.headers.get("link")
        following = link and re.fullmatch(r'<(/api/v1/.+)>; rel="next"', link)[1]
    return pages


async def test_link_headers_lead_through_all_routines(client: Client) -> None:
    await client.post("/api/v1/tasks/my-org", json={"name": "alpha", "workflow": {}})
    for task in ("echo", "alpha"):
        for name in "cab":
            await client.post(f"/api/v1/routines/my-org/{task}", json={**DAILY, "name": name})
    pages = await every_page(client, "/api/v1/routines/my-org?limit=2")
    assert [[(one["task_name"], one["name"]) for one in page] for page in pages] == [
        [("alpha", "a"), ("alpha", "b")],
        [("alpha", "c"), ("echo", "a")],
        [("echo", "b"), ("echo", "c")],
    ]
    assert [[one["name"] for one in page] for page in await every_page(client, f"{BASE}?limit=2")] == [
        ["a", "b"],
        ["c"],
    ]
    assert len(await every_page(client, "/api/v1/tasks/my-org?limit=1")) == 2


async def test_link_headers_lead_through_all_runs(client: Client, connection: Connection) -> None:
    routine = (await client.post(BASE, json={**DAILY, "cadence": {"type": "hourly"}})).json()["id"]
    await connection.execute(
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id,
                                              scheduled_for, trigger, init_params, status, ended_at)
           SELECT collection_id, task_id, 1, id,
                  CASE WHEN n % 3 > 0 THEN '2026-05-04Z'::timestamptz + n * interval '1 h' END,
                  CASE WHEN n % 3 > 0 THEN 'schedule' ELSE 'run-now' END, '{}', 'completed', now()
           FROM routines.routines, generate_series(1, 50) AS n""",
    )
    assert routine
    pages = await every_page(client, f"{BASE}/r/runs")
    found = [run["trajectory_id"] for page in pages for run in page]
    assert [len(page) for page in pages] == [20, 20, 10]
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=x",
        "limit=",
        "limit=1e2",
        "limit=5.0",
        "limit= 5",
        "limit=0x5",
        "limit=5_0",
        "cursor=%00",
        "cursor=e30=",
        "lmit=5",
    ],
)
async def test_a_parameter_that_breaks_a_rule_answers_400_and_is_named(client: Client, query: str) -> None:
    answer = await client.get(f"/api/v1/routines/my-org?{query}")
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == query.partition("=")[0]


async def test_the_same_idempotency_key_and_body_create_once_and_answer_alike(
    client: Client, connection: Connection
) -> None:
    headers = {"Idempotency-Key": "k-1"}
    first = await client.post(BASE, json=DAILY, headers=headers)
    second = await client.post(BASE, json=DAILY, headers=headers)
    assert (first.status_code, second.status_code) == (201, 201)
    assert (first.content, second.headers["idempotent-replayed"]) == (second.content, "true")
    assert await value(connection, COUNT) == 1


async def test_the_same_idempotency_key_starts_one_run(client: Client) -> None:
    await client.post(BASE, json=DAILY)
    headers = {"Idempotency-Key": "k-1"}
    answers = await asyncio.gather(*(client.post(f"{BASE}/r/run-now", headers=headers) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert len((await client.get(f"{BASE}/r/runs")).json()) == 1


async def test_an_idempotency_key_with_another_body_or_path_answers_409(client: Client) -> None:
    headers = {"Idempotency-Key": "k-1"}
    await client.post(BASE, json=DAILY, headers=headers)
    for path, body in ((BASE, {**DAILY, "paused": True}), (f"{BASE}/r/run-now", None)):
        answer = await client.post(path, json=body, headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (409, TYPE_PREFIX + "idempotency-key-reused")


async def test_an_idempotency_key_whose_request_failed_may_be_sent_again(client: Client) -> None:
    headers = {"Idempotency-Key": "k-1"}
    bad = await client.post(BASE, json={**DAILY, "init_params_overrides": {"nope": 1}}, headers=headers)
    good = await client.post(BASE, json=DAILY, headers=headers)
    assert (bad.status_code, good.status_code) == (400, 201)


async def test_an_idempotency_key_is_forgotten_after_a_day(client: Client, connection: Connection) -> None:
    await client.post(BASE, json=DAILY)
    headers = {"Idempotency-Key": "k-1"}
    run = (await client.post(f"{BASE}/r/run-now", headers=headers)).json()["trajectory_id"]
    await connection.execute("UPDATE routines.idempotency_keys SET created_at = now() - interval '25 hours'")
    assert (await client.post(f"{BASE}/r/run-now", headers=headers)).json()["trajectory_id"] != run


@pytest.mark.parametrize("idempotency_key", ["", "a b", "a" * 256])
async def test_a_malformed_idempotency_key_answers_400(client: Client, idempotency_key: str) -> None:
    answer = await client.post(BASE, json=DAILY, headers={"Idempotency-Key": idempotency_key})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "Idempotency-Key")


async def test_idempotency_keys_belong_to_one_api_key(client: Client, connection: Connection) -> None:
    other = await make_key(connection, "my-org")
    await client.post(BASE, json=DAILY)
    mine = await client.post(f"{BASE}/r/run-now", headers={"Idempotency-Key": "k"})
    theirs = await client.post(
        f"{BASE}/r/run-now", headers={"Idempotency-Key": "k", "Authorization": f"Bearer {other}"}
    )
    assert mine.json()["trajectory_id"] != theirs.json()["trajectory_id"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"[" * 10_000, b'{"name": "\\u0000"}', b"NaN", b"[]", b'{"a":1,"a":2}']
)
async def test_a_body_that_is_not_a_json_object_answers_400_with_a_detail(client: Client, body: bytes) -> None:
    answer = await client.post(BASE, content=body)
    assert answer.status_code == 400
    assert answer.json()["detail"]


async def test_a_body_over_the_limit_answers_413(client: Client) -> None:
    assert (await client.post(BASE, content=b" " * (256 * 1024 + 1))).status_code == 413


async def test_a_body_of_another_type_answers_415_and_says_what_to_send(client: Client) -> None:
    answer = await client.post(BASE, content=b"{}", headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert (answer.status_code, "Content-Type: application/json" in answer.json()["detail"]) == (415, True)


async def test_secrets_are_stored_as_ciphertext_and_deleted_with_their_routine(
    client: Client, connection: Connection
) -> None:
    body = {
        **DAILY,
        "secret_params": {"T": "plain-secret"},
        "webhook_url": "https://x.org",
        "webhook_secret": "plain-w",
    }
    await client.post(BASE, json=body)
    stored = await value(connection, "SELECT string_agg(encode(ciphertext, 'escape'), ' ') FROM routines.secrets")
    assert isinstance(stored, str)
    assert "plain" not in stored
    assert await value(connection, "SELECT count(*) FROM routines.secrets") == 2
    await client.delete(f"{BASE}/r")
    assert await value(connection, "SELECT count(*) FROM routines.secrets") == 0


async def test_a_replaced_secret_is_kept_until_the_run_that_uses_it_ends(
    client: Client, connection: Connection
) -> None:
    await client.post(BASE, json={**DAILY, "secret_params": {"T": "old"}})
    await client.post(f"{BASE}/r/run-now")
    await client.patch(f"{BASE}/r", json={"secret_params": {"T": "new"}})
    assert await value(connection, "SELECT count(*) FROM routines.secrets") == 2
    await connection.execute("UPDATE routines.trajectories SET status = 'cancelled', ended_at = now()")
    assert await value(connection, "SELECT count(*) FROM routines.secrets") == 1
    assert await value(connection, "SELECT secret_refs FROM routines.trajectories") == {}


def test_every_problem_type_is_documented() -> None:
    documented = (sql_dir().parent / "docs" / "use" / "errors.md").read_text("utf-8")
    for kind in PROBLEM_TYPES.values():
        assert f"`{TYPE_PREFIX}{kind.slug}`" in documented
        assert str(kind.status) in documented
