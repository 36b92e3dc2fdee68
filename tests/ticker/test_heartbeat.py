"""A ticker tells a watchman outside once a minute that nothing is late, and says nothing while something is."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import httpx
import pytest

import routines_ticker.heartbeat as module
from routines_core.db import Connection
from routines_core.logging import configure_logging
from routines_core.settings import Settings
from routines_ticker.heartbeat import Heartbeat, beating
from routines_ticker.metrics import TickerMetrics
from routines_ticker.ticker import run_ticker
from support.rows import Database, make_routine, make_task

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
BUSY = b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"
REDIRECT = b"HTTP/1.1 302 Away\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n"
ENDLESS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"4\r\nmore\r\n" * 1000


class Watchman:
    """Listens on loopback and answers each request with `answer`, or not at all if that is empty."""

    def __init__(self) -> None:
        self.answer = OK
        self.requests: list[str] = []
        self.heard = asyncio.Condition()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests.append((await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")[0].decode())
        async with self.heard:
            self.heard.notify_all()
        writer.write(self.answer)
        await writer.drain()
        if not self.answer:
            await reader.read()
        writer.close()

    async def wait_for(self, requests: int) -> None:
        """Wait until so many requests have come."""
        async with self.heard:
            await self.heard.wait_for(lambda: len(self.requests) >= requests)


@asynccontextmanager
async def listening() -> AsyncGenerator[Watchman]:
    watchman = Watchman()
    server = await asyncio.start_server(watchman.serve, "127.0.0.1", 0)
    watchman.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/ping/secret"
    try:
        yield watchman
    finally:
        server.close()


def counts(metrics: TickerMetrics) -> dict[str, float]:
    """Return how many requests had each outcome, without those that none had."""
    found = {
        outcome: metrics.registry.get_sample_value("routines_ticker_heartbeats_total", {"outcome": outcome}) or 0
        for outcome in ("sent", "withheld", "failed")
    }
    return {outcome: count for outcome, count in found.items() if count}


async def beat(watchman: Watchman, database: Database, times: int = 1) -> dict[str, float]:
    heartbeat = Heartbeat(watchman.url, database.url, TickerMetrics())
    async with httpx.AsyncClient() as client:
        for _ in range(times):
            await heartbeat.beat(client)
    return counts(heartbeat.metrics)


@pytest.fixture(name="watchman")
async def _watchman() -> AsyncGenerator[Watchman]:
    async with listening() as watchman:
        yield watchman


async def set_due(connection: Connection, seconds_ago: float) -> None:
    await make_routine(connection, await make_task(connection), datetime.now(UTC) - timedelta(seconds=seconds_ago))


async def test_it_is_sent_while_nothing_is_due(watchman: Watchman, database: Database) -> None:
    assert await beat(watchman, database, 2) == {"sent": 2}
    assert watchman.requests == ["GET /ping/secret HTTP/1.1"] * 2


@pytest.mark.parametrize(("seconds_ago", "outcome"), [(-3600, "sent"), (20, "sent"), (90, "withheld")])
async def test_it_is_withheld_once_a_slot_is_a_minute_late(
    watchman: Watchman, database: Database, connection: Connection, seconds_ago: float, outcome: str
) -> None:
    await set_due(connection, seconds_ago)
    assert await beat(watchman, database) == {outcome: 1}
    assert len(watchman.requests) == (outcome == "sent")


async def test_it_is_withheld_once_the_end_of_a_pause_is_a_minute_late(
    watchman: Watchman, database: Database, connection: Connection
) -> None:
    await set_due(connection, -3600)
    await connection.execute("ALTER TABLE routines.routines DISABLE TRIGGER USER")
    for seconds, outcome in ((20, "sent"), (90, "withheld")):
        await connection.execute(
            """UPDATE routines.routines SET paused = true, next_run_at = NULL, paused_at = now() - interval '1 hour',
                      paused_until = now() - make_interval(secs => %s)""",
            [seconds],
        )
        assert await beat(watchman, database) == {outcome: 1}


@pytest.mark.parametrize("answer", [BUSY, REDIRECT, b"no HTTP\r\n\r\n"], ids=["503", "redirect", "no HTTP"])
async def test_what_is_no_success_is_a_failure_and_is_logged_once_without_the_path(
    watchman: Watchman, database: Database, capsys: pytest.CaptureFixture[str], answer: bytes
) -> None:
    configure_logging("json")
    heartbeat = Heartbeat(watchman.url, database.url, TickerMetrics())
    async with httpx.AsyncClient() as client:
        for each in (answer, answer, OK, OK):
            watchman.answer = each
            await heartbeat.beat(client)
    assert counts(heartbeat.metrics) == {"failed": 2, "sent": 2}
    told = "".join(capsys.readouterr())
    assert told.count("heartbeat not sent, retrying") == 1
    assert told.count("heartbeat works again") == 1
    assert "secret" not in told


@pytest.mark.parametrize("answer", [b"", ENDLESS], ids=["silent", "endless"])
async def test_a_watchman_that_does_not_end_its_answer_holds_nothing_up(
    watchman: Watchman, database: Database, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.5)
    watchman.answer = answer
    async with asyncio.timeout(5):
        assert await beat(watchman, database) == ({"sent": 1} if answer else {"failed": 1})


async def test_nothing_is_sent_while_the_database_cannot_be_asked(watchman: Watchman) -> None:
    heartbeat = Heartbeat(watchman.url, "postgresql://127.0.0.1:1/none", TickerMetrics())
    async with httpx.AsyncClient() as client:
        await heartbeat.beat(client)
    assert counts(heartbeat.metrics) == {"failed": 1}
    assert watchman.requests == []


async def test_it_ends_with_the_ticker_even_while_a_request_is_open(watchman: Watchman, database: Database) -> None:
    watchman.answer = b""
    stop = asyncio.Event()
    async with asyncio.timeout(5), beating(Heartbeat(watchman.url, database.url, TickerMetrics()), stop):
        await watchman.wait_for(1)
        stop.set()


async def test_a_ticker_sends_one_when_it_starts_and_then_at_intervals(
    watchman: Watchman, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = asyncio.Event()
    monkeypatch.setattr("routines_ticker.ticker.stop_event", lambda: stop)
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.2)
    settings = Settings.model_validate({"ROUTINES_HEARTBEAT_URL": watchman.url})
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(run_ticker(settings, database.url))
        await watchman.wait_for(3)
        stop.set()


async def test_it_goes_through_the_proxy_of_the_environment(
    watchman: Watchman, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", watchman.url.removesuffix("/ping/secret"))
    heartbeat = Heartbeat("http://watchman.test/ping", database.url, TickerMetrics())
    async with asyncio.timeout(10), beating(heartbeat, asyncio.Event()):
        await watchman.wait_for(1)
    assert watchman.requests == ["GET http://watchman.test/ping HTTP/1.1"]
