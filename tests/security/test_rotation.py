"""Run `routines secrets rotate` under load, interrupted and several at once; check what the doctor says of secrets."""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import uuid4

import httpx
import psycopg
import pytest

from routines_core.db import Connection, connect
from routines_core.db.keys import authenticate, create_key
from routines_core.db.peppers import Peppers
from routines_core.db.rotation import Rotated, rotate_secrets
from routines_core.keyring import Keyring, LocalKeys, SecretContext, generate_key
from security.sealed import open_all
from support.command import routines
from support.rows import Database
from support.sampling import left_out
from support.serving import TASK, ApiProcess, api_process

OLD, NEW = generate_key("old"), generate_key("new")
BEFORE, BOTH, AFTER = Keyring.parse(OLD), Keyring.parse(f"{NEW},{OLD}"), Keyring.parse(NEW)
SECRETS = 10_000


async def store(connection: Connection, count: int) -> list[SecretContext]:
    """Store this many environment values of the collection `my-org` under the old key."""
    cursor = await connection.execute("INSERT INTO routines.collections (name) VALUES ('my-org') RETURNING id")
    [(collection_id,)] = await cursor.fetchall()
    contexts = [SecretContext(collection_id, "environment", f"NAME_{n}", "", uuid4()) for n in range(count)]
    async with (
        connection.cursor() as cursor,
        cursor.copy(
            "COPY routines.secrets (id, collection_id, kind, field, owner, key_id, ciphertext) FROM STDIN"
        ) as copy,
    ):
        for context in contexts:
            sealed = BEFORE.seal(f"value of {context.field}", context)
            await copy.write_row((context.secret_id, collection_id, "environment", context.field, "", "old", sealed))
    return contexts


@asynccontextmanager
async def readers(database: Database, contexts: list[SecretContext]) -> AsyncGenerator[list[int]]:
    """Open secrets in other sessions until the end of the block; yields [reads, failed reads]."""
    counts, stop = [0, 0], asyncio.Event()

    async def read() -> None:
        async with connect(database.url, "reader") as connection:
            while not stop.is_set():
                context = random.choice(contexts)
                cursor = await connection.execute(
                    "SELECT ciphertext FROM routines.secrets WHERE id = %s", [context.secret_id]
                )
                row = await cursor.fetchone()
                counts[0] += 1
                counts[1] += not row or BOTH.open(row[0], context) != f"value of {context.field}"

    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(read())
        yield counts
        stop.set()


@asynccontextmanager
async def writers(api: ApiProcess, key: str) -> AsyncGenerator[list[int]]:
    """Create, change and delete secrets through the API until the end of the block; yields the statuses."""
    statuses: list[int] = []
    stop = asyncio.Event()

    async def write() -> None:
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=f"{api.url}/api/v1", headers=headers, timeout=30) as client:
            await client.post("/tasks/my-org", json={"name": "echo", "workflow": TASK})
            number = 0
            while not stop.is_set():
                number += 1
                body = {"name": "r", "cadence": {"type": "manual"}, "secret_params": {"A": "1", "B": "2"}}
                statuses.append((await client.post("/routines/my-org/echo", json=body)).status_code)
                change = {"secret_params": {"A": "********", "B": "3"}}
                statuses.append((await client.patch("/routines/my-org/echo/r", json=change)).status_code)
                if not stop.is_set():
                    statuses.append((await client.delete("/routines/my-org/echo/r")).status_code)

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        yield statuses
        stop.set()


@left_out
async def test_ten_thousand_secrets_are_rotated_under_load_without_a_failed_read(
    connection: Connection, database: Database
) -> None:
    contexts = await store(connection, SECRETS)
    key = await create_key(connection, "my-org", Peppers(BEFORE))
    with api_process(database.url, encryption_keys=f"{NEW},{OLD}") as api:
        async with readers(database, contexts) as counts, writers(api, key) as statuses:
            await interrupted(database)
            done = await asyncio.gather(
                *(asyncio.to_thread(routines, database, "secrets", "rotate", keys=f"{NEW},{OLD}") for _ in range(2))
            )
            [(left,)] = await (
                await connection.execute("SELECT count(*) FROM routines.secrets WHERE key_id <> 'new'")
            ).fetchall()
    assert [each.returncode for each in done] == [0, 0], [each.stderr for each in done]
    assert left == 0
    assert counts[0] > 100
    assert counts[1] == 0
    assert set(statuses) == {200, 201, 204}
    assert all("no stored secret needs 'old'" in each.stdout for each in done)
    assert await still_open(connection, contexts) == SECRETS
    assert None not in (await open_all(connection, AFTER)).values()
    await authenticate(connection, key, Peppers(AFTER))


async def interrupted(database: Database) -> None:
    """Start a rotation that is interrupted after its second batch."""

    class StopNowError(Exception):
        pass

    def stop(rotated: Rotated) -> None:
        if rotated.replaced >= 1000:
            raise StopNowError

    async with connect(database.url, "first") as connection:
        with pytest.raises(StopNowError):
            await rotate_secrets(connection, BOTH, tell=stop)


async def still_open(connection: Connection, contexts: list[SecretContext]) -> int:
    """Return how many of these open with only the new key."""
    rows = await (await connection.execute("SELECT id, ciphertext FROM routines.secrets")).fetchall()
    stored = dict(rows)
    return sum(AFTER.open(stored[context.secret_id], context) == f"value of {context.field}" for context in contexts)


async def test_rotation_preserves_concurrent_deletes_and_updates(connection: Connection, database: Database) -> None:
    """Another session changes the batch and commits after the rotation has read it."""
    first, second, third = await store(connection, 3)
    fresh = BOTH.seal("changed meanwhile", second)

    class Meddling(Keyring):
        def open(self, ciphertext: bytes, context: SecretContext) -> str:
            if context == third:
                with psycopg.connect(database.url, autocommit=True) as other:
                    other.execute("DELETE FROM routines.secrets WHERE id = %s", [first.secret_id])
                    other.execute(
                        "UPDATE routines.secrets SET ciphertext = %s, key_id = 'new' WHERE id = %s",
                        [fresh, second.secret_id],
                    )
            return super().open(ciphertext, context)

    await rotate_secrets(connection, Meddling(LocalKeys(f"{NEW},{OLD}").keys()))
    rows = await (await connection.execute("SELECT id, ciphertext FROM routines.secrets")).fetchall()
    stored = dict(rows)
    assert set(stored) == {second.secret_id, third.secret_id}
    assert stored[second.secret_id] == fresh
    assert AFTER.open(stored[third.secret_id], third) == "value of NAME_2"


async def test_rotation_skips_locked_rows_and_returns_to_them(connection: Connection, database: Database) -> None:
    first, *_ = await store(connection, 3)
    async with connect(database.url, "holder") as holder:
        reported: list[int] = []

        await holder.execute("BEGIN")
        await holder.execute("SELECT FROM routines.secrets WHERE id = %s FOR UPDATE", [first.secret_id])
        rotation = asyncio.create_task(
            rotate_secrets(connection, BOTH, tell=lambda rotated: reported.append(rotated.replaced))
        )
        async with asyncio.timeout(30):
            while not reported:  # noqa: ASYNC110 - wait for the report of the first batch
                await asyncio.sleep(0.01)
            assert reported[0] == 2
            await holder.execute("COMMIT")
            assert (await rotation).replaced == 3


async def test_secrets_that_do_not_open_are_left_unchanged_counted_and_named(
    connection: Connection, database: Database
) -> None:
    first, *_ = await store(connection, 3)
    await connection.execute(
        "UPDATE routines.secrets SET ciphertext = set_byte(ciphertext, 30, get_byte(ciphertext, 30) # 1) WHERE id = %s",
        [first.secret_id],
    )
    done = routines(database, "secrets", "rotate", keys=f"{NEW},{OLD}")
    assert done.returncode == 1
    assert f"1 secrets cannot be decrypted and were left unchanged: {first.secret_id}." in done.stderr
    assert "2 secrets are now under 'new'" in done.stdout
    assert "still needed: 'old'" in done.stdout
    examined = routines(database, "doctor", keys=f"{NEW},{OLD}")
    assert examined.returncode == 1
    assert "secrets   2 of 3 can be decrypted (2 under 'new', 1 under 'old')" in examined.stdout
    assert routines(database, "doctor", "--quick", keys=f"{NEW},{OLD}").returncode == 0


async def test_the_doctor_says_which_keys_the_secrets_need(connection: Connection, database: Database) -> None:
    await store(connection, 3)
    done = routines(database, "doctor", keys=OLD)
    assert (done.returncode, "secrets   all 3 can be decrypted (3 under 'old')" in done.stdout) == (0, True)
    done = routines(database, "doctor", keys=NEW)
    assert (done.returncode, "secrets   0 of 3 can be decrypted (3 under 'old')" in done.stdout) == (1, True)
    done = routines(database, "doctor", keys="")
    assert (done.returncode, "secrets   not examined: Neither ROUTINES_ENCRYPTION_KEYS" in done.stdout) == (1, True)
