"""Beta, the victim: a process that uses the service moderately and prints how long each action took.

It is separate from the test's process, where the attacker may use all processor time and so distort the measurement.
Actions start on a fixed schedule, even if earlier ones are still in progress, and are timed from their start. So a
service that hangs shows up as many slow samples rather than one.

It prints one line of JSON per sample, `{"probe", "at", "seconds", "fault"}`. Ten times a second it prints
`{"pending_since"}`: every sample that began before that time has been printed. It exits when its standard input closes.
"""

import asyncio
import itertools
import json
import os
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx
import psycopg

RUN_SYNC, GET, FIRE, WEBHOOK = PROBES = ("run-sync", "get", "fire", "webhook")
EVERY_SECONDS = {RUN_SYNC: 0.1, GET: 0.1, FIRE: 0.5, WEBHOOK: 0.5}
GIVE_UP_SECONDS = 15.0
"""An action that takes longer than this counts as failed."""
LOOK_SECONDS = 0.05
"""How often to poll for ended scheduled runs; the database times them."""
Timed = Callable[[], Awaitable[float | None]]


class FaultError(Exception):
    """An action of beta failed."""


@dataclass(frozen=True)
class Config:
    """The probe's single argument, as JSON."""

    api_url: str
    key: str
    database_url: str
    collection: str
    task: str
    run: int
    routines: list[int]


@dataclass
class Probe:
    """Performs and times beta's actions."""

    config: Config
    hook: str = ""
    _client: httpx.AsyncClient = field(init=False)
    _pending: dict[asyncio.Task[None], float] = field(default_factory=dict[asyncio.Task[None], float])
    _received: "dict[int, asyncio.Future[float]]" = field(default_factory=dict[int, "asyncio.Future[float]"])
    _fires: "dict[tuple[int, datetime], asyncio.Future[float]]" = field(
        default_factory=dict[tuple[int, datetime], "asyncio.Future[float]"]
    )

    async def work(self) -> None:
        """Probe until cancelled."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=8)
        self._client = httpx.AsyncClient(
            base_url=f"{self.config.api_url}/api/v1",
            headers={"Authorization": f"Bearer {self.config.key}"},
            timeout=GIVE_UP_SECONDS,
            limits=limits,
        )
        server = await asyncio.start_server(self._receive, "127.0.0.1", 0)
        self.hook = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
        self._routines = itertools.cycle(self.config.routines)
        self._database = await psycopg.AsyncConnection.connect(self.config.database_url, autocommit=True)
        timed = {RUN_SYNC: self._run_sync, GET: self._get, FIRE: self._fire, WEBHOOK: self._webhook}
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_fires())
            group.create_task(self._say_pending())
            for name, take in timed.items():
                group.create_task(self._repeat(name, take))

    async def _repeat(self, name: str, take: Timed) -> None:
        due = time.monotonic()
        while True:
            task = asyncio.create_task(self._sample(name, take))
            self._pending[task] = time.monotonic()
            task.add_done_callback(self._pending.pop)
            due = max(due + EVERY_SECONDS[name], time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    async def _sample(self, name: str, take: Timed) -> None:
        at, seconds, fault = time.monotonic(), None, None
        try:
            async with asyncio.timeout(GIVE_UP_SECONDS):
                seconds = await take()
        except TimeoutError:
            fault = f"no result within {GIVE_UP_SECONDS:g} s"
        except FaultError as error:
            fault = str(error)
        except Exception as error:  # noqa: BLE001 - any error means that beta was harmed
            fault = f"{type(error).__name__}: {error}"
        if seconds is None:
            seconds = time.monotonic() - at
        say({"probe": name, "at": at, "seconds": seconds, "fault": fault})

    async def _run_sync(self) -> None:
        answer = await self._client.post(f"/run-sync/{self.config.collection}/{self.config.task}", json={})
        _expect(answer)
        if (status := answer.json()["trajectory"]["status"]) != "completed":
            raise FaultError(f"the run is {status}")

    async def _get(self) -> None:
        _expect(await self._client.get(f"/db/trajectory/{self.config.collection}/{self.config.task}/{self.config.run}"))

    async def _fire(self) -> float:
        """Make a routine due at the next whole second. Returns the time from the slot to the end of its run."""
        routine = next(self._routines)
        cursor = await self._database.execute(
            """UPDATE routines.routines SET next_run_at = date_trunc('second', now()) + interval '1 second'
               WHERE id = %s RETURNING next_run_at""",
            [routine],
        )
        row = await cursor.fetchone()
        assert row
        key = routine, row[0]
        self._fires[key] = asyncio.get_running_loop().create_future()
        try:
            return await self._fires[key]
        finally:
            del self._fires[key]

    async def _watch_fires(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if not self._fires:
                continue
            cursor = await self._database.execute(
                """SELECT triggered_by_routine_id, scheduled_for, status,
                          extract(epoch FROM ended_at - scheduled_for)::float
                   FROM routines.trajectories WHERE triggered_by_routine_id = ANY (%s) AND scheduled_for >= %s
                   AND ended_at IS NOT NULL""",
                [self.config.routines, min(slot for _, slot in self._fires)],
            )
            for routine, slot, status, seconds in await cursor.fetchall():
                future = self._fires.get((routine, slot))
                if future is None or future.done():
                    continue
                if status == "completed":
                    future.set_result(seconds)
                else:
                    future.set_exception(FaultError(f"the run is {status}"))

    async def _webhook(self) -> float:
        """Start a run with a webhook; returns the time from the run's end to the webhook's arrival."""
        path = f"/run/{self.config.collection}/{self.config.task}"
        answer = await self._client.post(path, json={"webhook_url": self.hook})
        _expect(answer)
        run = answer.json()["trajectory_id"]
        future = self._received.setdefault(run, asyncio.get_running_loop().create_future())
        try:
            return await future
        finally:
            del self._received[run]

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.partition("content-length:")[2].split()[0])
        event = json.loads(await reader.readexactly(length))
        arrived = time.time()
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()
        run = event["trajectory_id"]
        future = self._received.setdefault(run, asyncio.get_running_loop().create_future())
        if event["status"] != "completed":
            future.set_exception(FaultError(f"the run is {event['status']}"))
        elif not future.done():
            future.set_result(arrived - datetime.fromisoformat(event["ended_at"]).timestamp())

    async def _say_pending(self) -> None:
        while True:
            say({"pending_since": min(self._pending.values(), default=time.monotonic())})
            await asyncio.sleep(0.1)


def _expect(answer: httpx.Response) -> None:
    if answer.status_code != httpx.codes.OK:
        raise FaultError(f"answered {answer.status_code} {answer.text[:200]}")


def say(line: dict[str, Any]) -> None:
    """Print one line."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def main() -> None:
    """Probe until standard input ends."""
    probing = asyncio.create_task(Probe(Config(**json.loads(sys.argv[1]))).work())
    reading = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    await asyncio.wait({probing, reading}, return_when=asyncio.FIRST_COMPLETED)
    if probing.done():
        traceback.print_exception(probing.exception())
    os._exit(probing.done())


if __name__ == "__main__":
    asyncio.run(main())
