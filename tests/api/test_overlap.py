"""overlap_policy and max_concurrent of a routine over HTTP."""

from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from routines_core.db import Connection
from support.rows import value

Client = AsyncTestClient[Any]
BASE = "/api/v1/routines/my-org/echo"
DAILY = {"name": "r", "cadence": {"type": "daily", "hour_utc": 9}}


@pytest.mark.parametrize("policy", ["skip", "queue_one", "cancel_other"])
async def test_a_policy_is_kept_and_read_and_may_be_sent_back(client: Client, policy: str) -> None:
    made = await client.post(BASE, json={**DAILY, "overlap_policy": policy})
    assert (made.status_code, made.json()["overlap_policy"]) == (201, policy), made.text
    assert "max_concurrent" not in made.json()
    read = (await client.get(f"{BASE}/r")).json()
    assert (await client.patch(f"{BASE}/r", json=read)).json()["overlap_policy"] == policy
    assert (await client.get(BASE)).json()[0]["overlap_policy"] == policy


async def test_allow_goes_with_max_concurrent_and_drops_it_with_the_next_policy(client: Client) -> None:
    made = await client.post(BASE, json={**DAILY, "overlap_policy": "allow", "max_concurrent": 3})
    assert (made.status_code, made.json()["max_concurrent"]) == (201, 3), made.text
    assert (await client.patch(f"{BASE}/r", json={"max_concurrent": 5})).json()["max_concurrent"] == 5
    read = (await client.get(f"{BASE}/r")).json()
    assert (await client.patch(f"{BASE}/r", json=read)).json()["max_concurrent"] == 5
    skips = (await client.patch(f"{BASE}/r", json={"overlap_policy": "skip"})).json()
    assert (skips["overlap_policy"], "max_concurrent" in skips) == ("skip", False)


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"overlap_policy": "allow"}, "max_concurrent: must be 1 to 100 with overlap_policy allow"),
        ({"max_concurrent": 3}, "max_concurrent: must be 1 to 100 with overlap_policy allow"),
        (
            {"overlap_policy": "queue_one", "max_concurrent": 3},
            "max_concurrent: must be 1 to 100 with overlap_policy allow",
        ),
        ({"overlap_policy": "allow", "max_concurrent": 0}, "max_concurrent: "),
        ({"overlap_policy": "allow", "max_concurrent": 101}, "max_concurrent: "),
        ({"overlap_policy": "allow", "max_concurrent": "3"}, "max_concurrent: "),
        ({"overlap_policy": "often"}, "overlap_policy: "),
        ({"overlap_policy": None}, "overlap_policy: "),
    ],
)
async def test_a_policy_that_is_not_valid_is_refused(client: Client, fields: dict[str, Any], detail: str) -> None:
    refused = await client.post(BASE, json={**DAILY, **fields})
    assert (refused.status_code, refused.json()["detail"].startswith(detail)) == (400, True), refused.text
    assert (await client.post(BASE, json=DAILY)).status_code == 201
    changed = await client.patch(f"{BASE}/r", json=fields)
    assert (changed.status_code, changed.json()["detail"].startswith(detail)) == (400, True), changed.text
    assert (await client.get(f"{BASE}/r")).json()["overlap_policy"] == "skip"


async def test_a_run_now_that_respects_overlap_has_as_much_room_as_the_policy_gives(
    client: Client, connection: Connection
) -> None:
    await client.post(BASE, json={**DAILY, "overlap_policy": "allow", "max_concurrent": 2})
    answers = [await client.post(f"{BASE}/r/run-now", json={"respect_overlap": True}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 409]
    first = await value(connection, "SELECT min(id) FROM routines.trajectories")
    assert answers[2].json()["detail"] == f"Run {first} of the routine is active."
    assert (await client.post(f"{BASE}/r/run-now")).status_code == 200
