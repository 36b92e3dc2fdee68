"""Ended runs with webhooks, for tests of their delivery."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from psycopg.types.json import Jsonb

from routines_core.db import Connection, deliveries
from routines_core.db.deliveries import ClaimedDelivery, Outcome, Settlement
from routines_core.db.secrets import seal
from routines_core.guarded_http import guarded_client
from routines_core.keyring import owner_of_routine
from routines_engine.webhooks.deliveries import STOP_AFTER_SECONDS, Deliverer, open_pools
from routines_engine.webhooks.retry_schedule import MOST_ATTEMPTS
from support.rows import KEYRING, Database, make_routine, make_task

WORKFLOW = '{"init_params": {"text": "hello"}, "steps": ["say"], "step_configs": {"say": {"activity": "text_echo"}}}'


async def routine_with_webhook(
    connection: Connection, url: str, secret: str | None = None, *, name: str = "morning"
) -> int:
    """Create a routine in the collection `my-org` with this webhook URL. Returns its id."""
    found = await (await connection.execute("SELECT id FROM routines.tasks")).fetchone()
    task = found[0] if found else await make_task(connection, WORKFLOW)
    routine = await make_routine(connection, task, datetime.fromisoformat("2030-01-01T09:00Z"), name=name)
    await connection.execute(
        "UPDATE routines.routines SET webhook_url = %s, webhook_secret_id = %s WHERE id = %s",
        [url, await keep_secret(connection, secret, routine) if secret else None, routine],
    )
    return routine


async def keep_secret(connection: Connection, secret: str, routine: int) -> UUID:
    """Store a webhook secret for the routine. Returns its id."""
    row = await (await connection.execute("SELECT id FROM routines.collections")).fetchone()
    assert row
    owner = owner_of_routine(routine)
    sealed = seal(KEYRING, secret, collection_id=row[0], kind="webhook_secret", owner=owner)
    await connection.execute(
        """INSERT INTO routines.secrets (id, collection_id, kind, field, owner, key_id, ciphertext)
           VALUES (%s, %s, %s, '', %s, %s, %s)""",
        [sealed.id, row[0], sealed.kind, owner, sealed.key_id, sealed.ciphertext],
    )
    return sealed.id


async def ended_runs(connection: Connection, routine: int, count: int = 1, *, params: Any = None) -> None:
    """Create completed runs of the routine, each with one step, whose webhooks are due now."""
    await connection.execute(
        """WITH made AS (
               INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id,
                                                  trigger, init_params, webhook_url, webhook_secret_id)
               SELECT collection_id, task_id, 1, id, 'run-now', %s || jsonb_build_object('n', n), webhook_url,
                      webhook_secret_id
               FROM routines.routines, generate_series(1, %s) AS n WHERE id = %s
               RETURNING id)
           INSERT INTO routines.steps (trajectory_id, name, position, fence, status, activity, inputs, outputs,
                                       ended_at)
           SELECT id, 'say', 0, 1, 'completed', 'text_echo', '{}', '{"text": "hi"}', now() FROM made""",
        [Jsonb(params or {}), count, routine],
    )
    await connection.execute(
        "UPDATE routines.trajectories SET status = 'completed', ended_at = now() WHERE ended_at IS NULL"
    )


async def due_webhooks(connection: Connection, collection: str, urls: Sequence[str], count: int = 1) -> None:
    """Create ended runs of this collection with `count` due webhooks, alternating between these URLs."""
    await connection.execute(
        """WITH tenant AS (
               INSERT INTO routines.collections (name) VALUES (%(collection)s)
               ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING id),
           task AS (
               INSERT INTO routines.tasks (collection_id, name) SELECT id, 'echo' FROM tenant
               ON CONFLICT (collection_id, name) DO UPDATE SET name = excluded.name RETURNING id, collection_id)
           INSERT INTO routines.task_versions (task_id, version, workflow) SELECT id, 1, %(workflow)s::json FROM task
           ON CONFLICT DO NOTHING""",
        {"collection": collection, "workflow": WORKFLOW},
    )
    await connection.execute(
        """INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params, webhook_url)
           SELECT tasks.collection_id, tasks.id, 1, 'api', '{}',
                  (%(urls)s::text[])[1 + n %% cardinality(%(urls)s::text[])]
           FROM routines.tasks JOIN routines.collections ON collections.id = collection_id
                CROSS JOIN generate_series(1, %(count)s) AS n
           WHERE collections.name = %(collection)s""",
        {"collection": collection, "urls": list(urls), "count": count},
    )
    await connection.execute(
        "UPDATE routines.trajectories SET status = 'completed', ended_at = now() WHERE ended_at IS NULL"
    )


async def claim(
    connection: Connection,
    *,
    now: datetime | None = None,
    capacity: int = 50,
    reserve: int = 0,
    per_host: int = 50,
    per_collection: int = 50,
) -> list[ClaimedDelivery]:
    """Claim deliveries as a worker does."""
    return await deliveries.claim(
        connection,
        capacity=capacity,
        reserve=reserve,
        per_host=per_host,
        per_collection=per_collection,
        lease_seconds=60,
        most_attempts=MOST_ATTEMPTS,
        now=now,
    )


async def body_of(connection: Connection, delivery: ClaimedDelivery) -> bytes:
    """Return the body of a claimed delivery."""
    bodies = await deliveries.prepare(connection, [delivery], most_together=None)
    body = bodies[delivery.id]
    assert body is not None
    return body


async def settle(
    connection: Connection,
    delivery: ClaimedDelivery,
    outcome: Outcome,
    *,
    delay_seconds: float | None = 5,
    now: datetime | None = None,
) -> bool:
    """Record an outcome. Returns whether the delivery was still ours."""
    settlement = Settlement(delivery, outcome, delay_seconds)
    return await deliveries.settle(connection, [settlement], stop_after_seconds=STOP_AFTER_SECONDS, now=now) != []


@asynccontextmanager
async def delivering(
    database: Database,
    *,
    count: int = 1,
    allow_private: bool = True,
    timeout_seconds: float = 5,
    load_seconds: float = 5,
    per_host: int = 8,
) -> AsyncGenerator[list[Deliverer]]:
    """Run workers that deliver webhooks until the end of the block."""
    stop = asyncio.Event()
    async with (
        open_pools(database.url, "webhooks", load_seconds=load_seconds) as (pool, loading),
        guarded_client(allow_private=allow_private, timeout_seconds=timeout_seconds) as client,
        asyncio.TaskGroup() as group,
    ):
        workers = [Deliverer(pool, loading, stop, client, KEYRING, per_host=per_host) for _ in range(count)]
        running = [group.create_task(worker.run()) for worker in workers]
        try:
            async with asyncio.timeout(60):
                yield workers
        finally:
            stop.set()
            await asyncio.wait(running)


async def until(connection: Connection, query: str, *, seconds: float = 30) -> None:
    """Return once the query's first column is true; raise TimeoutError if that takes too long."""
    async with asyncio.timeout(seconds):
        while True:
            row = await (await connection.execute(query.encode())).fetchone()
            if row and row[0]:
                return
            await asyncio.sleep(0.02)


async def attempts(connection: Connection) -> list[dict[str, Any]]:
    """Return every attempt of every delivery, in order."""
    cursor = await connection.execute("SELECT attempts FROM routines.webhook_deliveries ORDER BY id")
    return [attempt for (each,) in await cursor.fetchall() for attempt in each]


def decoded(body: bytes) -> Any:
    """Return the JSON value that a receiver got."""
    return msgspec.json.decode(body)
