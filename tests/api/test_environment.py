"""The environment of a collection is encrypted, masked, and changed name by name."""

import asyncio
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from routines_core.db import Connection, connect
from routines_core.db.collections import patch_environment
from routines_core.db.secrets import seal
from routines_core.keyring import SecretContext
from support.rows import KEYRING, Database, value

Client = AsyncTestClient[Any]
PATH = "/api/v1/collections/my-org/environment"
MASK = "********"


async def change(client: Client, **variables: str | None) -> Any:
    return await client.patch(PATH, json={"environment_variables": variables})


async def test_values_read_as_the_mask_and_are_stored_encrypted(client: Client, connection: Connection) -> None:
    answer = await change(client, TOKEN="s3cret", OTHER="")
    assert (answer.status_code, answer.json()) == (200, {"environment_variables": {"OTHER": MASK, "TOKEN": MASK}})
    assert (await client.get(PATH)).json() == answer.json()
    cursor = await connection.execute(
        "SELECT id, ciphertext FROM routines.secrets WHERE id = (SELECT (environment_refs ->> 'TOKEN')::uuid "
        "FROM routines.collections)"
    )
    row = await cursor.fetchone()
    assert row
    assert b"s3cret" not in row[1]
    assert KEYRING.open(row[1], SecretContext(1, "environment", "TOKEN", "", row[0])) == "s3cret"


async def test_a_change_keeps_other_names_null_removes_and_the_mask_keeps_a_value(
    client: Client, connection: Connection
) -> None:
    await change(client, A="1", B="2", C="3")
    kept = await value(connection, "SELECT environment_refs ->> 'B' FROM routines.collections")
    answer = await change(client, A=None, B=MASK, D="4", ABSENT=None)
    assert list(answer.json()["environment_variables"]) == ["B", "C", "D"]
    assert await value(connection, "SELECT environment_refs ->> 'B' FROM routines.collections") == kept
    await change(client, C="5")
    assert await value(connection, "SELECT count(*) FROM routines.secrets") == 3


async def test_the_mask_is_refused_for_a_name_without_a_stored_value(client: Client, connection: Connection) -> None:
    answer = await change(client, NEW="x", ABSENT=MASK)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "environment_variables.ABSENT")
    assert await value(connection, "SELECT count(*) FROM routines.secrets") == 0


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "\u00c4", "A" * 101, "A\n"])
async def test_an_invalid_name_is_refused(client: Client, name: str) -> None:
    answer = await client.patch(PATH, json={"environment_variables": {name: "s3cret"}})
    assert answer.status_code == 400
    assert "s3cret" not in answer.text


@pytest.mark.parametrize("body", [{}, {"environment_variables": None}, {"environment_variables": {"A": 1}}, {"A": "x"}])
async def test_a_malformed_change_is_refused(client: Client, body: Any) -> None:
    assert (await client.patch(PATH, json=body)).status_code == 400


async def test_a_collection_may_have_a_hundred_variables(client: Client) -> None:
    assert (await change(client, **{f"A{n}": "x" for n in range(100)})).status_code == 200
    assert (await change(client, ONE_MORE="x")).status_code == 400
    assert (await change(client, A1="y")).status_code == 200


async def test_concurrent_changes_lose_nothing_and_leave_no_ciphertext_behind(
    client: Client, connection: Connection, database: Database
) -> None:

    async def one(number: int) -> None:
        async with connect(database.url, "tests") as own:
            for name in (f"OWN_{number}", "SHARED"):
                sealed = {name: seal(KEYRING, str(number), collection_id=1, kind="environment", field=name, owner="")}
                assert await patch_environment(own, key_id=1, sealed=sealed, removed=[], kept=[])

    await asyncio.gather(*(one(number) for number in range(10)))
    names = (await client.get(PATH)).json()["environment_variables"]
    assert len(names) == 11
    assert await value(connection, "SELECT count(*) FROM routines.secrets") == 11
