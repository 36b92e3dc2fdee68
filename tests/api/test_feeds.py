"""Calendar feeds by HTTP: made and revoked with a key, and read with a token that opens nothing else."""

import re
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import icalendar
import pytest
from litestar.testing import AsyncTestClient
from structlog.testing import capture_logs

from routines_api.app import create_app
from routines_core.db import Connection
from routines_core.db import feeds as db
from routines_core.db.keys import checksum
from support.rows import Database, api_settings, make_key, value
from support.serving import api_process

Client = AsyncTestClient[Any]
FEEDS = "/api/v1/ics/my-org"
ROUTINES = "/api/v1/routines/my-org/echo"
SECRETS = {
    "init_params_overrides": {"a": "CANARY-override"},
    "secret_params": {"KEY": "CANARY-secret"},
    "webhook_url": "https://example.com/CANARY-hook",
    "webhook_secret": "CANARY-signature",
}


@pytest.fixture
async def morning(client: Client) -> None:
    """A routine daily at 09:00, with values that a feed must not show."""
    body = {"name": "morning", "cadence": {"type": "daily", "hour_utc": 9}, **SECRETS}
    assert (await client.post(ROUTINES, json=body)).status_code == 201


async def make(client: Client, **scope: str) -> dict[str, Any]:
    made = await client.post(FEEDS, json=scope)
    assert made.status_code == 201, made.text
    return made.json()


async def read(client: Client, token: str, **headers: str) -> httpx.Response:
    """Read a feed as a calendar program does: without a key."""
    return await client.get(f"/api/v1/ics/{token}.ics", headers={"Authorization": "", **headers})


def events(answer: httpx.Response) -> list[Any]:
    calendar = icalendar.Calendar.from_ical(answer.text)
    assert calendar.errors == []
    return list(calendar.walk("VEVENT"))


@pytest.mark.usefixtures("morning")
async def test_a_feed_is_the_calendar_of_the_coming_slots(client: Client) -> None:
    made = await make(client)
    assert set(made) == {"id", "url", "token"}
    assert re.fullmatch(r"rtf_\d+_[A-Za-z0-9_-]{43}[A-Za-z0-9]{6}", made["token"])
    assert urlsplit(made["url"]).path == f"/api/v1/ics/{made['token']}.ics"
    answer = await client.get(made["url"], headers={"Authorization": ""})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/calendar; charset=utf-8")
    assert answer.headers["cache-control"] == "private, no-cache"
    assert answer.headers["x-content-type-options"] == "nosniff"
    found = events(answer)
    coming = (await client.get(f"{ROUTINES}/morning/next?count=90")).json()["slots"]
    assert [event["DTSTART"].dt.strftime("%Y-%m-%dT%H:%M:%SZ") for event in found] == coming
    assert {str(event["SUMMARY"]) for event in found} == {"echo/morning"}


@pytest.mark.usefixtures("morning")
async def test_nothing_but_names_cadences_and_times_is_in_a_feed(client: Client) -> None:
    await client.post(f"{ROUTINES}/morning/pause", json={"note": "CANARY-note", "until": "2127-01-01T00:00:00Z"})
    quiet = await read(client, (await make(client))["token"])
    await client.post(f"{ROUTINES}/morning/resume")
    answer = await read(client, (await make(client))["token"])
    assert len(events(answer)) == 90
    assert "CANARY" not in answer.text + quiet.text
    names = {line.partition(":")[0].partition(";")[0] for line in answer.text.split("\r\n") if line[:1] != " "}
    assert names == {
        *(
            "BEGIN",
            "END",
            "VERSION",
            "PRODID",
            "CALSCALE",
            "NAME",
            "X-WR-CALNAME",
            "REFRESH-INTERVAL",
            "X-PUBLISHED-TTL",
        ),
        *("UID", "DTSTART", "DTSTAMP", "DURATION", "SUMMARY", "DESCRIPTION", "STATUS", "TRANSP", ""),
    }


@pytest.mark.usefixtures("morning")
async def test_feeds_are_listed_without_their_tokens_and_revoked_at_once(client: Client) -> None:
    whole, routine = await make(client), await make(client, task="echo", routine="morning")
    await read(client, routine["token"])
    listed = (await client.get(FEEDS)).json()
    assert [(feed["id"], feed["task"], feed["routine"]) for feed in listed] == [
        (whole["id"], None, None),
        (routine["id"], "echo", "morning"),
    ]
    assert [set(feed) for feed in listed] == [{"id", "task", "routine", "created_at", "last_used_at"}] * 2
    assert [feed["last_used_at"] is None for feed in listed] == [True, False]
    first = await client.get(f"{FEEDS}?limit=1")
    assert [feed["id"] for feed in first.json()] == [whole["id"]]
    rest = await client.get(first.headers["link"][1:].partition(">")[0])
    assert ([feed["id"] for feed in rest.json()], "link" in rest.headers) == ([routine["id"]], False)
    assert (await client.delete(f"{FEEDS}/{routine['id']}")).status_code == 204
    assert (await read(client, routine["token"])).status_code == 404
    assert (await read(client, whole["token"])).status_code == 200
    assert (await client.delete(f"{FEEDS}/{routine['id']}")).status_code == 404


async def test_a_feed_needs_a_task_and_a_routine_that_exist(client: Client) -> None:
    assert (await client.post(FEEDS)).status_code == 201
    assert (await client.post(FEEDS, json={"task": None, "routine": None})).status_code == 201
    assert (await client.post(FEEDS, json={"task": "none"})).status_code == 404
    assert (await client.post(FEEDS, json={"task": "echo", "routine": "none"})).status_code == 404
    alone = await client.post(FEEDS, json={"routine": "morning"})
    assert (alone.status_code, alone.json()["detail"]) == (400, "routine: needs the task that it belongs to.")
    for body, field in (({"task": "A b"}, "task"), ({"days": 3}, "days"), ({"task": 1, "routine": "r"}, "task")):
        refused = await client.post(FEEDS, json=body)
        assert (refused.status_code, [each["field"] for each in refused.json()["errors"]]) == (400, [field])


@pytest.mark.usefixtures("morning")
@pytest.mark.parametrize("gone", ["routine", "task"])
async def test_a_feed_ends_with_what_it_shows(client: Client, gone: str) -> None:
    scope = {"task": "echo"} if gone == "task" else {"task": "echo", "routine": "morning"}
    token, whole = (await make(client, **scope))["token"], (await make(client))["token"]
    assert (await client.delete(f"{ROUTINES}/morning")).status_code == 204
    if gone == "task":
        assert (await client.delete("/api/v1/tasks/my-org/echo")).status_code == 200
    assert (await read(client, token)).status_code == 404
    empty = await read(client, whole)
    assert (empty.status_code, events(empty)) == (200, [])


@pytest.mark.usefixtures("morning")
async def test_whatever_opens_no_feed_is_answered_alike(client: Client) -> None:
    token = (await make(client))["token"]
    revoked = await make(client)
    await client.delete(f"{FEEDS}/{revoked['id']}")
    last = token[-7]
    wrong = token[:-7] + ("A" if last != "A" else "B")
    unknown = "rtf_999_" + "a" * 43
    key = client.headers["Authorization"].removeprefix("Bearer ")
    nothing = await client.get("/api/v1/nothing/at/all", headers={"Authorization": ""})
    for given in (
        wrong + checksum(wrong),
        unknown + checksum(unknown),
        revoked["token"],
        token[:-1],
        "",
        "my-org",
        key,
    ):
        answer = await read(client, given)
        assert (given, answer.status_code, answer.content) == (given, 404, nothing.content)
        assert dict(answer.headers) == dict(nothing.headers)


@pytest.mark.usefixtures("morning")
async def test_a_token_opens_nothing_but_its_calendar(client: Client) -> None:
    token = (await make(client))["token"]
    headers = {"Authorization": f"Bearer {token}"}
    for path in ("/api/v1/collections", FEEDS, ROUTINES, "/api/v1/tasks/my-org"):
        assert (await client.get(path, headers=headers)).status_code == 401
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        answer = await client.request(method, f"/api/v1/ics/{token}.ics", headers={"Authorization": ""})
        assert answer.status_code in {401, 404}
        as_key = await client.request(method, f"/api/v1/ics/{token}.ics", headers=headers)
        assert as_key.status_code in {401, 404}
    for path in (f"/api/v1/ics/{token}", f"/api/v1/ics/{token}.ics/1"):
        assert (await client.get(path, headers={"Authorization": ""})).status_code in {401, 404}


@pytest.mark.usefixtures("morning")
async def test_a_calendar_that_has_not_changed_is_not_sent_again(client: Client) -> None:
    token = (await make(client))["token"]
    first = await read(client, token)
    etag = first.headers["etag"]
    for known in (etag, etag.removeprefix("W/"), f'"other", {etag}', "*"):
        again = await read(client, token, **{"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert (await read(client, token, **{"If-None-Match": '"other"'})).status_code == 200
    await client.patch(f"{ROUTINES}/morning", json={"cadence": {"type": "daily", "hour_utc": 10}})
    changed = await read(client, token, **{"If-None-Match": etag})
    assert (changed.status_code, changed.headers["etag"] == etag) == (200, False)


@pytest.mark.usefixtures("morning")
async def test_uids_stay_the_same_when_the_routine_is_renamed(client: Client) -> None:
    token = (await make(client))["token"]
    before = [str(event["UID"]) for event in events(await read(client, token))]
    await client.patch(f"{ROUTINES}/morning", json={"name": "evening"})
    after = events(await read(client, token))
    assert [str(event["UID"]) for event in after] == before
    assert len(set(before)) == 90
    assert {str(event["SUMMARY"]) for event in after} == {"echo/evening"}


@pytest.mark.usefixtures("morning")
async def test_query_parameters_that_calendar_programs_add_are_ignored(client: Client) -> None:
    token = (await make(client))["token"]
    answer = await client.get(f"/api/v1/ics/{token}.ics?nocache=123", headers={"Authorization": ""})
    assert answer.status_code == 200
    assert (await client.get(f"{FEEDS}?nocache=123")).status_code == 400


async def test_a_feed_may_be_read_so_often_and_no_oftener(client: Client, connection: Connection) -> None:
    token = (await make(client))["token"]
    other = (await make(client))["token"]
    answers = [await read(client, token) for _ in range(21)]
    assert [answer.status_code for answer in answers] == [200] * 20 + [429]
    assert (
        answers[-1].json()["detail"] == "This calendar feed exceeds its request rate: wait for the time in Retry-After."
    )
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 10
    assert (await read(client, other)).status_code == 200
    assert await value(connection, "SELECT min(tokens) FROM routines.feeds") < 1  # pyright: ignore[reportOperatorIssue]


async def test_the_url_begins_with_the_address_that_people_use(connection: Connection, database: Database) -> None:
    settings = api_settings(public_url="https://routines.example.com/")
    async with AsyncTestClient(create_app(settings, database.url)) as client:
        client.headers["Authorization"] = f"Bearer {await make_key(connection, 'my-org')}"
        made = await make(client)
    assert made["url"] == f"https://routines.example.com/api/v1/ics/{made['token']}.ics"


async def test_a_collection_has_only_so_many_feeds(client: Client, connection: Connection) -> None:
    await connection.execute("INSERT INTO routines.collection_limits (name, value) VALUES ('feeds', 2)")
    assert [(await client.post(FEEDS)).status_code for _ in range(3)] == [201, 201, 429]
    assert (await client.post(FEEDS)).json()["limit"] == "feeds"
    limits = (await client.get("/api/v1/collections/my-org/limits")).json()["limits"]
    assert [(each["value"], each["use"]) for each in limits if each["name"] == "feeds"] == [(2, 2)]


async def test_only_the_hash_of_a_token_is_stored(client: Client, connection: Connection) -> None:
    token = (await make(client))["token"]
    secret = token.split("_", 2)[2][:43]
    stored = await value(connection, "SELECT string_agg(feeds::text, '') FROM routines.feeds")
    assert isinstance(stored, str)
    assert secret not in stored
    assert secret.encode().hex() not in stored
    assert secret not in repr(await value(connection, "SELECT query FROM pg_stat_activity LIMIT 1"))


async def test_reading_a_feed_takes_one_of_the_places_for_plans(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, held = cast("Any", client).app.state.services.plans, list[int]()

    async def noted(*_: Any, **__: Any) -> list[Any]:
        held.append(gate.in_use)
        return []

    token = (await make(client))["token"]
    monkeypatch.setattr(db, "feed_slots", noted)
    assert (await read(client, token)).status_code == 200
    assert (held, gate.in_use) == ([1], 0)


async def test_a_token_that_cannot_be_one_is_refused_without_a_connection(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = cast("Any", client).app.state.services
    monkeypatch.setattr(services.connections, "try_enter", lambda _: pytest.fail("it took a connection"))
    token = "rtf_1_" + "a" * 43
    for given in ("x", token, token + "AAAAAA", token.replace("1", "0") + checksum(token.replace("1", "0"))):
        assert (await read(client, given)).status_code == 404


async def test_a_failure_is_logged_under_the_route_without_the_token(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = (await make(client))["token"]

    async def fails(*_: Any, **__: Any) -> list[Any]:
        raise RuntimeError(token)

    monkeypatch.setattr(db, "feed_slots", fails)
    with capture_logs() as logged:
        answer = await read(client, token)
    assert (answer.status_code, token in answer.text) == (500, False)
    assert [line["route"] for line in logged] == ["/api/v1/ics/{token}.ics"]
    assert token not in repr(logged)


def test_the_url_works_as_it_is_and_metrics_name_its_route_without_the_token(shared: Database, key: str) -> None:
    with api_process(shared.url) as process, process.client(key) as client:
        made = client.post(FEEDS).json()
        assert made["url"] == f"{process.url}/api/v1/ics/{made['token']}.ics"
        assert httpx.get(made["url"]).status_code == 200
        pages = client.get("/metrics", headers={"Authorization": ""}).text
    assert 'route="/api/v1/ics/{token}.ics"' in pages
    assert "rtf_" not in pages
