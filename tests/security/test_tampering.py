"""Let an attacker write to the database: no ciphertext opens anywhere except where it was sealed."""

from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from routines_api.app import create_app
from routines_core.db import Connection
from routines_core.keyring import Keyring
from security.sealed import open_all
from support.command import routines
from support.rows import ENCRYPTION_KEYS, Database, api_settings, make_key
from support.serving import TASK

RING = Keyring.parse(ENCRYPTION_KEYS)
ROTATED = """
    UPDATE routines.secrets SET {column} = moved.{column}
    FROM (SELECT id, coalesce(lead({column}) OVER by_id, first_value({column}) OVER by_id) AS {column}
          FROM routines.secrets WINDOW by_id AS (ORDER BY id)) AS moved
    WHERE moved.id = secrets.id
"""


@pytest.fixture
async def filled(connection: Connection, database: Database) -> int:
    """Create two collections of two routines, each with a run and equally named secrets; return how many references."""
    async with AsyncTestClient(create_app(api_settings(), database.url)) as client:
        for collection in ("mine", "theirs"):
            client.headers["Authorization"] = f"Bearer {await make_key(connection, collection)}"
            await client.post(f"/api/v1/tasks/{collection}", json={"name": "echo", "workflow": TASK})
            for name in ("one", "two"):
                await fill(client, f"/api/v1/routines/{collection}/echo", name)
    return 2 * 2 * 2 * 3


async def fill(client: AsyncTestClient[Any], path: str, name: str) -> None:
    """Create a routine with three secrets, change one of them, rename the routine and start a run of it."""
    made = await client.post(
        path,
        json={
            "name": "first-name",
            "cadence": {"type": "manual"},
            "secret_params": {"A": f"{path}-{name}-A", "B": "before"},
            "webhook_url": "https://example.com",
            "webhook_secret": f"{path}-{name}-webhook",
        },
    )
    assert made.status_code == 201
    change = {"name": name, "secret_params": {"A": "********", "B": f"{path}-{name}-B"}}
    assert (await client.patch(f"{path}/first-name", json=change)).status_code == 200
    assert (await client.post(f"{path}/{name}/run-now")).status_code == 200


async def test_every_secret_opens_for_the_routine_and_for_its_run(filled: int, connection: Connection) -> None:
    opened = await open_all(connection, RING)
    assert len(opened) == filled
    assert all(opened.values())
    for found, plaintext in opened.items():
        assert str(plaintext).endswith(found.field or "webhook")


async def test_a_run_that_outlives_its_routine_still_opens_its_secrets(filled: int, connection: Connection) -> None:
    await connection.execute("DELETE FROM routines.routines")
    opened = await open_all(connection, RING)
    assert len(opened) == filled / 2
    assert all(opened.values())


@pytest.mark.parametrize("column", ["ciphertext", "collection_id", "kind", "field", "owner", "key_id"])
async def test_a_value_moved_to_another_row_opens_nowhere(
    filled: int, connection: Connection, column: str, database: Database
) -> None:
    """A reference does not trust the columns of the secret's row: only rotation and the doctor read them."""
    await connection.execute(ROTATED.format(column=column).encode())
    opened = await open_all(connection, RING)
    assert list(opened.values()).count(None) == (filled if column == "ciphertext" else 0)
    done = routines(database, "doctor")
    opens_all = "all 13 can be decrypted" in done.stdout  # twelve secrets, and the pepper of the API keys
    assert (done.returncode, opens_all) == ((0, True) if column == "key_id" else (1, False))


@pytest.mark.parametrize(
    "moved",
    [
        # between fields of one routine
        """UPDATE routines.{table} SET secret_refs =
               jsonb_build_object('A', secret_refs -> 'B', 'B', secret_refs -> 'A'), webhook_secret_id = NULL""",
        # the webhook's secret as a param, and a param as the webhook's secret
        """UPDATE routines.{table} SET webhook_secret_id = (secret_refs ->> 'A')::uuid,
               secret_refs = jsonb_build_object('A', webhook_secret_id, 'B', webhook_secret_id)""",
        # to another routine or run of the same collection
        """UPDATE routines.{table} AS t SET secret_refs = other.secret_refs, webhook_secret_id = other.webhook_secret_id
           FROM routines.{table} AS other WHERE other.collection_id = t.collection_id AND other.id <> t.id""",
        # to another collection
        """UPDATE routines.{table} AS t SET secret_refs = other.secret_refs, webhook_secret_id = other.webhook_secret_id
           FROM routines.{table} AS other WHERE other.collection_id <> t.collection_id""",
    ],
    ids=["fields", "kinds", "owners", "tenants"],
)
@pytest.mark.parametrize("table", ["routines", "trajectories"])
async def test_a_reference_redirected_to_another_secret_opens_nothing(
    filled: int, connection: Connection, table: str, moved: str
) -> None:
    await connection.execute(
        "SET session_replication_role = replica"
    )  # as the tables' owner can: no trigger interferes
    await connection.execute(moved.format(table=table).encode())
    opened = await open_all(connection, RING)
    redirected = [text for found, text in opened.items() if (found.run_id is None) == (table == "routines")]
    assert len(redirected) >= filled / 3
    assert set(redirected) == {None}
