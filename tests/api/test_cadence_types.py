"""Cron, interval and once, and bounds, by HTTP."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from routines_core.db import Connection
from routines_core.db.tick import tick
from support.rows import CATCHUP, value

Client = AsyncTestClient[Any]
TASK = "/api/v1/routines/my-org/echo"
PREVIEW = "/api/v1/cadence-preview/my-org"
NULLS = {"hour_utc": None, "minute_utc": 0, "day_of_week": None}


async def created(client: Client, **fields: Any) -> dict[str, Any]:
    answer = await client.post(TASK, json={"name": "r", **fields})
    assert answer.status_code == 201, answer.json()
    return answer.json()


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"type": "cron", "expression": " 0 9 * * MON-fri"}, {"timezone": "UTC"}),
        ({"type": "cron", "expression": ["@daily"], "timezone": "Europe/Berlin"}, {}),
        ({"type": "cron", "expression": ["0 9 L * *", "0 9 15W * *"], "timezone": "Asia/Kolkata", "minute_utc": 0}, {}),
        (
            {"type": "interval", "every_minutes": 45, "anchor": "2026-05-04T11:00:00+02:00"},
            {"anchor": "2026-05-04T09:00:00Z"},
        ),
        ({"type": "once", "at": "2099-05-04T09:00:00Z", "day_of_week": None, "timezone": "UTC"}, {"timezone": None}),
        ({"type": "weekly", "hour_utc": 9, "day_of_week": "mon", "timezone": "UTC"}, {"timezone": None}),
    ],
    ids=lambda each: each.get("type", "-"),
)
async def test_a_cadence_reads_as_it_was_given_and_may_be_sent_back(
    client: Client, given: dict[str, Any], read: dict[str, Any]
) -> None:
    expected = {name: field for name, field in {**NULLS, **given, **read}.items() if name in NULLS or field is not None}
    routine = await created(client, cadence=given)
    assert routine["cadence"] == expected
    assert routine["next_run_at"] is not None
    again = await client.patch(f"{TASK}/r", json=routine)
    assert (again.status_code, again.json()) == (200, routine)
    assert [each["cadence"] for each in (await client.get(TASK)).json()] == [expected]


async def test_a_routine_that_uses_nothing_new_has_no_new_fields(client: Client) -> None:
    routine = await created(client, cadence={"type": "weekdays", "hour_utc": 9})
    assert list(routine["cadence"]) == ["type", "hour_utc", "minute_utc", "day_of_week"]
    assert list(routine) == [
        "id", "name", "task_name", "collection_name", "cadence", "init_params_overrides", "secret_params",
        "webhook_url", "webhook_secret", "paused", "last_run_at", "next_run_at", "overlap_policy",
    ]  # fmt: skip


async def test_an_interval_without_an_anchor_is_counted_from_its_minute(client: Client) -> None:
    before = datetime.now(UTC) - timedelta(minutes=2)
    routine = await created(client, cadence={"type": "interval", "every_minutes": 7})
    anchor = datetime.fromisoformat(routine["cadence"]["anchor"])
    assert before < anchor <= datetime.now(UTC)
    assert (anchor.second, anchor.microsecond) == (0, 0)
    assert datetime.fromisoformat(routine["next_run_at"]) - anchor == timedelta(minutes=7)


async def test_bounds_are_set_changed_and_removed(client: Client) -> None:
    bounds = {"starts_at": "2098-01-01T00:00:00Z", "ends_at": "2098-01-02T12:00:00Z"}
    routine = await created(client, cadence={"type": "daily", "hour_utc": 9}, **bounds)
    assert {name: routine[name] for name in bounds} == bounds
    assert routine["next_run_at"] == "2098-01-01T09:00:00Z"
    changed = await client.patch(f"{TASK}/r", json={"starts_at": "2098-01-02T00:00:00Z"})
    assert changed.json()["next_run_at"] == "2098-01-02T09:00:00Z"
    over = await client.patch(f"{TASK}/r", json={"starts_at": "2098-01-02T10:00:00Z"})
    assert (over.status_code, over.json()["next_run_at"]) == (200, None)
    refused = await client.patch(f"{TASK}/r", json={"ends_at": "2098-01-01T00:00:00Z"})
    assert (refused.status_code, refused.json()["detail"]) == (400, "ends_at: must not be earlier than starts_at.")
    freed = (await client.patch(f"{TASK}/r", json={"starts_at": None, "ends_at": None})).json()
    assert not {"starts_at", "ends_at"} & set(freed)
    assert freed["next_run_at"] < "2098"


@pytest.mark.parametrize(
    ("cadence", "field", "rule"),
    [
        (
            {"type": "cron", "expression": "61 * * * *"},
            "cadence.expression",
            "minute must be 0-59, *, a range such as 1-5",
        ),
        ({"type": "cron", "expression": ["@daily", "0 0 30 2 *"]}, "cadence.expression", "never comes"),
        (
            {"type": "cron", "expression": "@daily", "timezone": "Foo5"},
            "cadence.timezone",
            "such as Europe/Berlin or UTC",
        ),
        ({"type": "cron", "expression": 5}, "cadence.expression", "must be a string, or an array of 1 to 10 strings"),
        ({"type": "cron", "expression": "\x00"}, None, ""),
        ({"type": "once", "at": "2027-05-04T09:00:00"}, "cadence.at", "for example 2026-05-04T09:00:00Z"),
        ({"type": "interval", "every_minutes": 525_601}, "cadence.every_minutes", "less than or equal to 525600"),
        ({"type": "hourly", "timezone": "Europe/Berlin"}, "cadence.timezone", "does not go with hourly"),
    ],
    ids=lambda each: str(each.get("type")) if isinstance(each, dict) else None,
)
async def test_a_cadence_that_is_not_valid_is_refused_when_saved_and_when_previewed(
    client: Client, connection: Connection, cadence: dict[str, Any], field: str | None, rule: str
) -> None:
    saved = await client.post(TASK, json={"name": "r", "cadence": cadence})
    previewed = await client.post(PREVIEW, json={"cadence": cadence})
    for answer in (saved, previewed):
        assert answer.status_code == 400
        if field:
            [fault] = answer.json()["errors"]
            assert fault["field"] == field
            assert rule in fault["message"]
    assert await value(connection, "SELECT count(*) FROM routines.routines") == 0


async def test_a_preview_lists_slots_of_the_new_types(client: Client) -> None:
    async def slots(**cadence: Any) -> list[str]:
        answer = await client.post(PREVIEW, json={"cadence": cadence, "count": 2})
        assert answer.status_code == 200
        return answer.json()["slots"]

    assert await slots(type="once", at="2099-05-04T09:00:00Z") == ["2099-05-04T09:00:00Z"]
    assert await slots(type="once", at="1999-05-04T09:00:00Z") == []
    first, second = map(datetime.fromisoformat, await slots(type="interval", every_minutes=10))
    assert (second - first, first.second) == (timedelta(minutes=10), 0)
    assert {slot[10:] for slot in await slots(type="cron", expression="30 9 * * *", timezone="Asia/Kolkata")} == {
        "T04:00:00Z"
    }


async def test_occurrences_of_a_cron_routine_have_their_local_time(client: Client, connection: Connection) -> None:
    routine = await created(
        client, cadence={"type": "cron", "expression": "30 2 14 3 *", "timezone": "America/New_York"}
    )
    await connection.execute(
        "UPDATE routines.routines SET created_at = '2027-01-01Z', next_run_at = '2027-03-14 07:00Z'"
    )
    slot = datetime(2027, 3, 14, 7, tzinfo=UTC)
    await tick(connection, batch_size=10, now=slot, **CATCHUP)
    [occurrence] = (await client.get(f"{TASK}/r/occurrences")).json()
    assert (occurrence["local_time"], occurrence["dst"]) == ("2027-03-14T03:00:00-04:00", "shifted")
    why = (await client.get(f"{TASK}/r/why", params={"at": "2027-03-14T07:00:00Z"})).json()
    assert why["sentence"].endswith("02:30 did not exist in America/New_York on 2027-03-14; it fired at 03:00.")
    await client.patch(f"{TASK}/r", json={"cadence": {"type": "hourly"}})
    occurrences = (await client.get(f"{TASK}/r/occurrences")).json()
    assert [set(each) & {"local_time", "dst"} for each in occurrences] == [set()] * len(occurrences)
    assert routine["cadence"]["timezone"] == "America/New_York"
