"""Webhooks delivered by real `routines worker` processes that get real signals."""

import asyncio
import os
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from routines_core.db import Connection
from routines_core.lifecycle import LIFELINE_VARIABLE
from support.outbox import ended_runs, routine_with_webhook, until
from support.receivers import Behaviour, answers, hangs, receiver
from support.rows import ENCRYPTION_KEYS, Database, value
from support.service import ROUTINES, clean_environment

pytestmark = pytest.mark.slow


@asynccontextmanager
async def worker(database: Database) -> AsyncGenerator[Process]:
    """Start a worker whose webhooks may go to loopback; it is killed at the end of the block."""
    lifeline, lifeline_end = os.pipe()
    environment = {
        **clean_environment(),
        "DATABASE_URL": database.url,
        "ROUTINES_ENCRYPTION_KEYS": ENCRYPTION_KEYS,
        "ROUTINES_WEBHOOK_ALLOW_PRIVATE": "true",
        LIFELINE_VARIABLE: str(lifeline),
    }
    process = await asyncio.create_subprocess_exec(
        *ROUTINES, "worker", env=environment, stdout=DEVNULL, stderr=DEVNULL, pass_fds=[lifeline]
    )
    os.close(lifeline)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        os.close(lifeline_end)


def hangs_at_first() -> Behaviour:
    """Hangs at its first request and accepts the others."""
    behaviours = iter([hangs])

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await next(behaviours, answers(200))(reader, writer)

    return behave


async def test_a_webhook_that_a_killed_worker_was_sending_is_sent_again_with_the_same_id(
    connection: Connection, database: Database
) -> None:
    async with receiver(hangs_at_first()) as hook:
        await ended_runs(connection, await routine_with_webhook(connection, hook.url, "secret"))
        async with worker(database) as first:
            await until(
                connection, "SELECT claimed_at IS NOT NULL AND body IS NOT NULL FROM routines.webhook_deliveries"
            )
            while not hook.received:  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # until the request has arrived, within the test's timeout
            first.kill()
            await first.wait()
        # Expire the lease: nothing else makes the delivery due again.
        await connection.execute("UPDATE routines.webhook_deliveries SET next_attempt_at = now()")
        async with worker(database):
            await until(connection, "SELECT delivered_at IS NOT NULL FROM routines.webhook_deliveries")
    one, two = hook.received
    assert one.headers["webhook-id"] == two.headers["webhook-id"]
    assert one.body == two.body
    lost = "the worker was lost: it is unknown whether it arrived"
    assert await value(connection, "SELECT attempts -> 0 ->> 'error' FROM routines.webhook_deliveries") == lost


async def test_a_worker_stops_in_time_while_a_receiver_hangs(connection: Connection, database: Database) -> None:
    async with receiver(hangs) as hook, worker(database) as process:
        await ended_runs(connection, await routine_with_webhook(connection, hook.url))
        await until(connection, "SELECT claimed_at IS NOT NULL FROM routines.webhook_deliveries")
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 20) == 0
    assert await value(connection, "SELECT claimed_at IS NULL FROM routines.webhook_deliveries")
