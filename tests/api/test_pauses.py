"""A pause with an end and a note, by HTTP."""

from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from routines_core.db import Connection
from support.rows import value

Client = AsyncTestClient[Any]
BASE = "/api/v1/routines/my-org/echo"
ROUTINE = f"{BASE}/r"
DAILY = {"name": "r", "cadence": {"type": "daily", "hour_utc": 9}}
UNTIL = "2126-05-07T08:30:00Z"
PAUSE = {"until": UNTIL, "note": "office closed"}
TEXT = {"Content-Type": "text/plain"}


@pytest.fixture
async def routine(client: Client) -> dict[str, Any]:
    """Create a daily routine at 09:00."""
    return (await client.post(BASE, json=DAILY)).json()


async def paused(client: Client, **body: Any) -> dict[str, Any]:
    answer = await client.post(f"{ROUTINE}/pause", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def patched(client: Client, **body: Any) -> dict[str, Any]:
    answer = await client.patch(ROUTINE, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def refused(client: Client, method: str, path: str, body: Any) -> str:
    answer = await client.request(method, path, json=body)
    assert answer.status_code == 400, answer.text
    return answer.json()["detail"]


async def test_a_pause_shows_its_end_and_its_note_until_the_routine_is_resumed(
    client: Client, routine: dict[str, Any]
) -> None:
    shown = {**routine, "paused": True, "next_run_at": None, "paused_until": UNTIL, "paused_note": "office closed"}
    assert await paused(client, **PAUSE) == shown
    assert (await client.get(ROUTINE)).json() == {**shown, "warnings": []}
    assert (await client.get(BASE)).json() == [shown]
    assert (await client.post(f"{ROUTINE}/resume")).json() == routine


@pytest.mark.parametrize("body", [b"", b"{}", b" \n", b'{"until": null, "note": null}'])
async def test_without_an_end_and_a_note_the_answer_is_as_if_there_were_none(
    client: Client, routine: dict[str, Any], body: bytes
) -> None:
    await paused(client, **PAUSE)
    answer = await client.post(f"{ROUTINE}/pause", content=body, headers={"Content-Type": "application/json"})
    assert answer.json() == {**routine, "paused": True, "next_run_at": None}
    assert list(answer.json()) == list(routine)


async def test_the_last_pause_decides_about_end_and_note(client: Client, routine: dict[str, Any]) -> None:
    await paused(client, **PAUSE)
    assert "paused_until" not in (read := await paused(client, note="longer"))
    assert read["paused_note"] == "longer"
    assert "paused_note" not in (read := await paused(client, until="2126-05-07T10:30:00+02:00"))
    assert read["paused_until"] == UNTIL


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"until": "2026-05-04T09:00:00Z"}, "until: must be in the future, by the clock of the database."),
        ({"until": "2199-01-01T00:00:00Z"}, "until: must be in the years 1970 to 2198."),
        ({"until": "2200-01-01T00:00:00Z"}, "until: must be in the years 1970 to 2199."),
        ({"until": "2126-05-07T08:30:00"}, "until: must be a time with a zone, for example 2026-05-04T09:00:00Z."),
        ({"until": "2126-02-30T08:30:00Z"}, "until: must be a time with a zone, for example 2026-05-04T09:00:00Z."),
        (
            {"until": "0001-01-01T00:00:00+23:59"},
            "until: must be a time with a zone, for example 2026-05-04T09:00:00Z.",
        ),
        ({"until": 4933427400}, "until: must be a time with a zone, for example 2026-05-04T09:00:00Z."),
        ({"note": ""}, 'note: must have at least 1 character, not "".'),
        ({"note": "x" * 501}, None),
        ({"note": 1}, None),
        ({"note": "a\0b"}, None),
        ({"untill": UNTIL}, "untill: unknown field."),
        ({"paused_until": UNTIL}, "paused_until: unknown field."),
    ],
)
async def test_a_pause_that_breaks_a_rule_is_refused_and_pauses_nothing(
    client: Client, routine: dict[str, Any], body: Any, detail: str | None
) -> None:
    said = await refused(client, "POST", f"{ROUTINE}/pause", body)
    assert said == detail if detail else any(word in said for word in (*body, "NUL"))
    assert (await client.get(ROUTINE)).json()["paused"] is False


@pytest.mark.parametrize("body", ["[]", '[{"note": "x"}]', '"x"', "1", "false", "null"])
async def test_a_pause_takes_nothing_but_an_object(client: Client, routine: dict[str, Any], body: str) -> None:
    answer = await client.post(f"{ROUTINE}/pause", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, "object" in answer.json()["detail"]) == (400, True)


@pytest.mark.parametrize(("body", "status"), [(b" \r\n\t", 200), (b"\x0b", 400), (b"\x0c\n", 400), (b"\x1c", 400)])
@pytest.mark.parametrize("act", ["pause", "resume"])
async def test_only_what_json_takes_for_white_space_counts_as_no_body(
    client: Client, routine: dict[str, Any], act: str, body: bytes, status: int
) -> None:
    assert routine
    assert (await client.post(f"{ROUTINE}/{act}", content=body)).status_code == status


async def test_a_pause_with_fields_must_be_json(client: Client, routine: dict[str, Any]) -> None:
    answer = await client.post(f"{ROUTINE}/pause", content='{"note": "x"}', headers=TEXT)
    assert answer.status_code == 415
    answer = await client.post(f"{ROUTINE}/pause", content="{", headers=TEXT)
    assert answer.status_code == 400
    assert (await client.post(f"{ROUTINE}/pause", content="{}", headers=TEXT)).status_code == 200


async def test_resume_takes_no_fields(client: Client, routine: dict[str, Any]) -> None:
    assert await refused(client, "POST", f"{ROUTINE}/resume", {"note": "x"}) == "note: unknown field."


async def test_a_patch_pauses_with_an_end_and_changes_and_clears_it(client: Client, routine: dict[str, Any]) -> None:
    read = await patched(client, paused=True, paused_until=UNTIL, paused_note="a")
    assert (read["paused_until"], read["paused_note"]) == (UNTIL, "a")
    assert (await patched(client, paused=True))["paused_until"] == UNTIL
    assert (await patched(client, paused_note="b"))["paused_note"] == "b"
    assert "paused_until" not in await patched(client, paused_until=None)
    assert "paused_note" not in await patched(client, paused_note=None)
    assert (await patched(client, paused_until=None, paused_note=None))["paused"] is True


async def test_what_get_returned_can_be_sent_back_whole_and_with_paused_set_to_false(
    client: Client, routine: dict[str, Any], connection: Connection
) -> None:
    await paused(client, **PAUSE)
    read = (await client.get(ROUTINE)).json()
    assert {**await patched(client, **read), "warnings": []} == read
    await connection.execute("ALTER TABLE routines.routines DISABLE TRIGGER USER")
    await connection.execute("UPDATE routines.routines SET paused_until = '2026-05-04 09:00Z'")
    await connection.execute("ALTER TABLE routines.routines ENABLE TRIGGER USER")
    read = (await client.get(ROUTINE)).json()
    assert read["paused_until"] == "2026-05-04T09:00:00Z"
    assert {**await patched(client, **read), "warnings": []} == read
    assert "paused_until" not in (resumed := await patched(client, **{**read, "paused": False}))
    assert (resumed["paused"], "paused_note" in resumed) == (False, False)
    assert await patched(client, **{**read, "paused": False}) == resumed


async def test_a_patch_refuses_an_end_in_the_past_and_an_end_without_a_pause(
    client: Client, routine: dict[str, Any]
) -> None:
    past = {"paused": True, "paused_until": "2026-05-04T09:00:00Z"}
    assert await refused(client, "PATCH", ROUTINE, past) == (
        "paused_until: must be in the future, by the clock of the database."
    )
    assert await refused(client, "PATCH", ROUTINE, {"paused_until": UNTIL}) == (
        "paused_until: only a paused routine can have it; send it with paused: true."
    )
    assert await refused(client, "PATCH", ROUTINE, {"paused_note": "x"}) == (
        "paused_note: only a paused routine can have it; send it with paused: true."
    )
    assert await refused(client, "POST", BASE, {**DAILY, "name": "s", "paused_until": UNTIL}) == (
        "paused_until: unknown field."
    )


async def test_why_names_the_end_and_the_note_and_knows_which_slot_comes_after_the_pause(
    client: Client, routine: dict[str, Any], connection: Connection
) -> None:
    before = (await client.get(f"{ROUTINE}/why?at=2126-05-07T09:00:00Z")).json()
    await paused(client, **PAUSE)
    since = await value(connection, "SELECT routines.utc(paused_at) FROM routines.routines")
    pause = f"paused by hand, since {since}, until {UNTIL}: office closed"
    within = (await client.get(f"{ROUTINE}/why?at=2126-05-06T09:00:00Z")).json()
    assert within["sentence"] == f"It will be skipped unless the routine is resumed: {pause}."
    assert (within["facts"]["paused_until"], within["facts"]["paused_note"]) == (UNTIL, "office closed")
    assert within["facts"]["next_slot"] == "2126-05-07T09:00:00Z"
    after = (await client.get(f"{ROUTINE}/why?at=2126-05-07T09:00:00Z")).json()
    assert (after["sentence"], after["facts"]["kind"]) == (before["sentence"], "future")
    assert "paused_until" not in before["facts"]
    between = (await client.get(f"{ROUTINE}/why?at=2126-05-06T10:00:00Z")).json()
    assert between["sentence"] == "No slot: the next is 2126-05-07T09:00:00Z."


async def test_next_lists_the_slots_after_the_end_of_the_pause(client: Client, routine: dict[str, Any]) -> None:
    await paused(client, **PAUSE)
    slots = ["2126-05-07T09:00:00Z", "2126-05-08T09:00:00Z"]
    assert (await client.get(f"{ROUTINE}/next?count=2")).json() == {"slots": slots}
    await paused(client)
    assert (await client.get(f"{ROUTINE}/next?count=2")).json() == {"slots": []}


async def test_the_description_says_that_the_body_of_a_pause_is_optional(client: Client) -> None:
    described = (await client.get("/openapi.json")).json()["paths"]
    operation = described["/api/v1/routines/{collection}/{task}/{name}/pause"]["post"]
    assert operation["requestBody"]["required"] is False
    resume = described["/api/v1/routines/{collection}/{task}/{name}/resume"]["post"]
    assert "requestBody" not in resume
