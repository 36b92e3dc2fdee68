"""Take docs/use/console.png anew: the overview of a morning on which some things went wrong.

PYTHONPATH=tests python docs/generators/console.py

Starts a server, the API and headless Chromium of its own. The routines and what became of their slots are below.
"""

import asyncio
import json
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from routines_core.db import connect
from routines_core.db.migrations import migrate
from routines_core.embedded import EmbeddedServer
from support.browsing import Console
from support.chromium import MISSING, chromium
from support.rows import make_key
from support.serving import api_process

PICTURE = Path(__file__).parents[1] / "use" / "console.png"
SIZE = (1280, 785)
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
STATUSES = {"c": "completed", "f": "failed", "r": "running"}
REASONS = {"m": "missed", "o": "overlap"}


class Sample(NamedTuple):
    """A routine. `slots` has what became of its newest slots, the oldest first, by the letters above."""

    task: str
    name: str
    cadence: dict[str, Any]
    slots: str
    seconds: int = 9
    error: str | None = None
    webhook: str | None = None
    paused: bool = False


def hourly(minute: int) -> dict[str, Any]:
    """Return a cadence."""
    return {"type": "hourly", "minute_utc": minute}


def at(hour: int, minute: int, kind: str = "daily", day: str | None = None) -> dict[str, Any]:
    """Return a cadence."""
    return {"type": kind, "hour_utc": hour, "minute_utc": minute, "day_of_week": day}


NO_ANSWER = "step 'get' failed: no response: All connection attempts failed"
SAMPLES = [
    Sample("fetch", "fetch-prices", hourly(5), "ccccccccccfcff", error=NO_ANSWER),
    Sample("nl-to-sql-regression", "nightly-full-run", at(2, 30), "cccccccccccccm", 2400),
    Sample("slow-crawl", "crawl-every-hour", hourly(15), "ccccccoccccoro", 40),
    Sample(
        "customer-report", "customer-report", at(8, 45, "weekdays"), "cccccccccccccc", webhook="https://example.com/"
    ),
    Sample("customer-report", "sales-report", at(7, 0), "cccccccccfcccc", 75, error="step 'render' failed: no rows"),
    Sample("fetch", "fetch-rates", hourly(35), "cccccccccccccc"),
    Sample("import", "import-orders", hourly(50), "cccccocccccccc", 130),
    Sample("import", "import-stock", at(4, 20), "cccccccccccccc", 310),
    Sample("clean-up", "expired-exports", at(3, 0, "weekly", "sun"), "ccccccccc", 22),
    Sample("nl-to-sql-regression", "morning-regression", at(9, 0, "weekdays"), "ccccccccccccc", 600),
    Sample("translate", "translate-news", hourly(0), "ccccccccc", paused=True),
]


def past_slots(cadence: dict[str, Any], now: datetime) -> Iterator[datetime]:
    """Yield the slots before now, the newest first."""
    slot = now.replace(minute=cadence["minute_utc"], second=0, microsecond=0)
    while True:
        is_hour = cadence["type"] == "hourly" or slot.hour == cadence["hour_utc"]
        day = DAYS[slot.weekday()]
        is_day = {"weekdays": day not in {"sat", "sun"}, "weekly": day == cadence.get("day_of_week")}
        if slot < now and is_hour and is_day.get(cadence["type"], True):
            yield slot
        slot -= timedelta(hours=1)


class Seed:
    """Writes the samples to a database, as a person at psql would."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self.now = datetime.now(UTC)
        self.tasks: dict[str, int] = {}

    def add(self, sample: Sample) -> None:
        """Add a routine, and what became of its slots."""
        cadence = sample.cadence
        routine = self._one(
            """INSERT INTO routines.routines (collection_id, task_id, name, cadence_type, hour_utc, minute_utc,
                   day_of_week, webhook_url, created_at, settled_until)
               VALUES (1, %s, %s, %s, %s, %s, %s, %s, now() - interval '200 days', now()) RETURNING id""",
            self._task(sample.task), sample.name, cadence["type"], cadence.get("hour_utc"), cadence["minute_utc"],
            cadence.get("day_of_week"), sample.webhook,
        )  # fmt: skip
        slots = list(islice(past_slots(cadence, self.now), len(sample.slots)))
        blocking = None
        for slot, letter in zip(reversed(slots), sample.slots, strict=True):
            if letter in REASONS:
                self._skip(routine, slot, REASONS[letter], blocking if letter == "o" else None)
            else:
                blocking = self._run(sample, routine, slot, STATUSES[letter])
        if sample.webhook:
            self._refuse_webhook(routine, blocking, sample.webhook)
        self.connection.execute("UPDATE routines.routines SET paused = %s WHERE id = %s", [sample.paused, routine])

    def _one(self, query: str, *parameters: object) -> int:
        [(value,)] = self.connection.execute(query.encode(), parameters).fetchall()
        return value

    def _task(self, name: str) -> int:
        if name not in self.tasks:
            self.tasks[name] = self._one(
                "INSERT INTO routines.tasks (collection_id, name) VALUES (1, %s) RETURNING id", name
            )
            self.connection.execute(
                "INSERT INTO routines.task_versions (task_id, version, workflow) VALUES (%s, 1, '{}')",
                [self.tasks[name]],
            )
        return self.tasks[name]

    def _run(self, sample: Sample, routine: int, slot: datetime, status: str) -> int:
        ended_at = None if status == "running" else slot + timedelta(seconds=sample.seconds)
        return self._one(
            """INSERT INTO routines.trajectories (
                   collection_id, task_id, task_version, triggered_by_routine_id, trigger, scheduled_for, init_params,
                   status, created_at, started_at, ended_at, lease_expires_at, error)
               VALUES (1, %s, 1, %s, 'schedule', %s, '{}', %s, %s, %s, %s, %s, %s) RETURNING id""",
            self._task(sample.task), routine, slot, status, slot, slot, ended_at,
            datetime(2100, 1, 1, tzinfo=UTC) if ended_at is None else None,
            sample.error if status == "failed" else None,
        )  # fmt: skip

    def _skip(self, routine: int, slot: datetime, reason: str, blocking: int | None) -> None:
        self.connection.execute(
            """INSERT INTO routines.skips (collection_id, routine_id, scheduled_for, last_scheduled_for, reason,
                   blocking_trajectory_id, recorded_at)
               VALUES (1, %s, %s, %s, %s, %s, %s)""",
            [routine, slot, slot, reason, blocking, slot],
        )

    def _refuse_webhook(self, routine: int, run: int | None, url: str) -> None:
        """Have the webhook of the newest run refused three times."""
        attempts = [{"at": "2026-05-04T09:00:02Z", "status": 500, "error": "it answered 500", "duration_seconds": 0.1}]
        self.connection.execute("DELETE FROM routines.webhook_deliveries")
        self.connection.execute(
            """INSERT INTO routines.webhook_deliveries (collection_id, trajectory_id, routine_id, event_status, url,
                   failures, attempts, next_attempt_at)
               VALUES (1, %s, %s, 'completed', %s, 3, %s, now() + interval '1 hour')""",
            [run, routine, url, json.dumps(3 * attempts)],
        )


async def migrated(url: str) -> str:
    """Migrate the database and return a key of the collection demo."""
    async with connect(url, "picture") as connection:
        await migrate(connection)
        return await make_key(connection, "demo")


def main() -> None:
    """Take the picture."""
    if MISSING:
        raise SystemExit(MISSING)
    with tempfile.TemporaryDirectory() as data, tempfile.TemporaryDirectory() as profile:
        server = EmbeddedServer(Path(data))
        server.start()
        try:
            key = asyncio.run(migrated(server.url()))
            with psycopg.connect(server.url()) as connection:
                seed = Seed(connection)
                for sample in SAMPLES:
                    seed.add(sample)
            with api_process(server.url()) as api, chromium(Path(profile)) as driver:
                console = Console(driver, api.url, key).arrive()
                console.screen(*SIZE)
                console.sign_in()
                console.until(lambda: len(console.all(".rows .strip > a")) > len(SAMPLES))
                console.find(".today .figure")
                driver.execute_script("document.activeElement.blur()")
                driver.save_screenshot(str(PICTURE))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
