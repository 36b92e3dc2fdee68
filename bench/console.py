"""Measure what the console asks the API for: for an overview of many routines, while nothing happens, after a change.

PYTHONPATH=tests python bench/console.py [--routines 5000] [--rounds 5] [--seconds 60]

Headless Chromium, the API and Postgres share the machine. There are 50 tasks of daily routines. Each routine has 14
past slots: 2 % were missed, 1 % failed, the rest completed. Nothing is due. Sizes are what the browser received:
compressed bodies, and 300 bytes for the headers of each answer. `first` ends when the headline appears, which then says
"so far"; `whole` ends when it covers all routines. The first visit begins with an empty browser cache.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from selenium.webdriver import Chrome

from harness import machine, median, server, slots_given, table
from routines_core.db import connect
from routines_core.db.migrations import migrate
from support.browsing import Console
from support.chromium import MISSING, chromium
from support.rows import make_key
from support.serving import api_process

COLLECTION = "my-org"
SLOTS = 14
MAX_BYTES, MAX_SECONDS, MIN_ROWS = 300_000, 1.0, 12
"""The bounds for 5,000 routines, on a quiet machine with two CPUs."""
SCREEN = (1440, 900)
POLL_SECONDS = 10
"""How often the overview asks what has changed."""

TASKS = """
    INSERT INTO routines.tasks (collection_id, name)
    SELECT id, 'task-' || lpad(n::text, 2, '0') FROM routines.collections, generate_series(1, 50) AS n;
    INSERT INTO routines.task_versions (task_id, version, workflow) SELECT id, 1, '{}' FROM routines.tasks
"""
ROUTINES = """
    INSERT INTO routines.routines (collection_id, task_id, name, cadence_type, hour_utc, minute_utc, next_run_at,
                                   settled_until, last_run_at, created_at)
    SELECT tasks.collection_id, tasks.id,
           (ARRAY['import', 'export', 'refresh', 'check', 'send'])[1 + mod(n, 5)] || '-'
           || (ARRAY['orders', 'prices', 'customers', 'stock', 'invoices', 'reports'])[1 + mod(n, 6)] || '-' || n,
           'daily', extract(hour FROM slot), extract(minute FROM slot), slot, now(),
           slot - interval '1 day' + random() * interval '40 milliseconds', now() - interval '60 days'
    FROM generate_series(1, %(count)s) AS n
    JOIN LATERAL (SELECT * FROM routines.tasks ORDER BY id OFFSET mod(n, 50) LIMIT 1) AS tasks ON true
    CROSS JOIN LATERAL (SELECT date_trunc('hour', now()) + make_interval(
        hours => 6 + mod(n, 16), mins => mod(n / 16, 60))) AS chosen (slot)
"""
"""As production would have left them: times of runs have microseconds."""
HISTORY = """
    WITH slot AS (
        SELECT id, collection_id, task_id, next_run_at - day * interval '1 day' AS at,
               mod(id * 31 + day * 7, 100) AS fate
        FROM routines.routines, generate_series(1, %(slots)s) AS day ORDER BY at
    ),
    missed AS (
        INSERT INTO routines.skips (collection_id, routine_id, scheduled_for, last_scheduled_for, reason, recorded_at)
        SELECT collection_id, id, at, at, 'missed', at + interval '1 hour' FROM slot WHERE fate < 2
    )
    INSERT INTO routines.trajectories (
        collection_id, task_id, task_version, triggered_by_routine_id, trigger, scheduled_for, init_params, status,
        error, created_at, updated_at, started_at, ended_at)
    SELECT collection_id, task_id, 1, id, 'schedule', at, '{}', CASE fate WHEN 2 THEN 'failed' ELSE 'completed' END,
           CASE fate WHEN 2 THEN 'step ''load'' failed: no response from warehouse-' || mod(id, 9) END,
           at + began, at + began + took, at + began, at + began + took
    FROM (SELECT *, random() * interval '900 milliseconds' AS began, random() * interval '90 seconds' AS took
          FROM slot) AS run
    WHERE fate >= 2 ORDER BY at
"""
RUN = """
    INSERT INTO routines.trajectories (
        collection_id, task_id, task_version, triggered_by_routine_id, trigger, init_params, status, error,
        created_at, started_at, ended_at)
    SELECT collection_id, task_id, 1, id, 'run-now', '{}', 'failed', 'refused', now(), now(), clock_timestamp()
    FROM routines.routines ORDER BY id LIMIT %(count)s
"""
WATCH = """
    performance.setResourceTimingBufferSize(10_000);
    window.shown = {};
    const look = () => {
      const lede = document.querySelector(".summary .lede");
      if (!lede || shown.whole) return;
      const names = lede.textContent.includes("so far") ? ["first"] : ["first", "whole"];
      requestAnimationFrame(() => setTimeout(() => {
        for (const name of names) shown[name] ??= performance.now();
      }));
    };
    new MutationObserver(look).observe(document, { childList: true, subtree: true, characterData: true });
"""
"""Notes when the headline was painted: of the first page of routines, and of all."""
ANSWERS = """
    return performance.getEntriesByType("resource").filter(({ name }) => name.includes("/api/v1/"))
      .map((each) => [new URL(each.name).pathname, each.startTime, each.responseEnd, each.transferSize]);
"""
VISIBLE = """
    scrollTo(0, 0);
    const ends = [...document.querySelectorAll(".row")].map((row) => row.getBoundingClientRect().bottom);
    return ends.filter((end) => end <= innerHeight).length;
"""


class Answer(NamedTuple):
    """An answer of the API: its path, when it was asked for and was there, in milliseconds, and its bytes."""

    path: str
    asked: float
    answered: float
    size: int


class Shown(NamedTuple):
    """What it took until a headline was there."""

    seconds: float
    requests: int
    size: int


async def fill(url: str, routines: int) -> str:
    """Fill the database and return a key."""
    async with connect(url, "bench", statement_timeout="300s") as connection:
        await migrate(connection)
        key = await make_key(connection, COLLECTION)
        for statement in TASKS.split(";\n"):
            await connection.execute(statement.encode())
        async with slots_given(connection):
            await connection.execute(ROUTINES.encode(), {"count": routines})
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(HISTORY.encode(), {"slots": SLOTS})
        await connection.execute("SET session_replication_role = origin")
        await connection.execute("VACUUM (ANALYZE)")
    return key


async def run_now(url: str, count: int) -> None:
    """Add a failed run of so many routines."""
    async with connect(url, "bench") as connection:
        await connection.execute(RUN.encode(), {"count": count})


class Page:
    """The overview in a browser."""

    def __init__(self, driver: Chrome, origin: str, key: str) -> None:
        self.driver = driver
        self.console = Console(driver, origin, key)

    def sign_in(self) -> None:
        """Give the tab the key."""
        self.console.arrive()
        self.console.sign_in()
        self.console.screen(*SCREEN)

    def open(self, *, is_cold: bool) -> dict[str, Shown]:
        """Open the overview and return what it took, by headline."""
        if is_cold:
            self.driver.execute_cdp_cmd("Network.clearBrowserCache", {})
        self.console.open("#/")
        until(lambda: self.driver.execute_script("return 'whole' in window.shown"))
        until(lambda: self.driver.execute_script("return document.querySelectorAll('.rows .strip > a').length > 0"))
        shown: dict[str, float] = self.driver.execute_script("return window.shown")
        return {name: self._shown(at) for name, at in shown.items()}

    def _shown(self, at: float) -> Shown:
        answers = [answer for answer in self.answers() if answer.answered <= at]
        return Shown(at / 1000, len(answers), sum(answer.size for answer in answers))

    def answers(self, since: float = 0) -> list[Answer]:
        """Return the answers to what was asked since a time of the page."""
        found = [Answer(*each) for each in self.driver.execute_script(ANSWERS)]
        return [answer for answer in found if answer.asked >= since and answer.answered]

    def now(self) -> float:
        """Return the time of the page, in milliseconds."""
        return self.driver.execute_script("return performance.now()")


def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until a condition of the page holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.05)


def opened(page: Page, rounds: int) -> dict[tuple[str, str], list[Shown]]:
    """Open the overview several times, with nothing in the browser's cache and with the console's files in it."""
    found: dict[tuple[str, str], list[Shown]] = {}
    for _ in range(rounds):
        for visit in ("first", "again"):
            for name, shown in page.open(is_cold=visit == "first").items():
                found.setdefault((visit, name), []).append(shown)
    return found


def idle(page: Page, seconds: float) -> Shown:
    """Return what the open page asks for within these seconds."""
    since = page.now()
    time.sleep(seconds)
    answers = page.answers(since)
    return Shown(seconds, len(answers), sum(answer.size for answer in answers))


def changed(page: Page, url: str, count: int) -> Shown:
    """Return what the page asks for to show the runs of so many routines, since it was told of them."""
    since = page.now()
    asyncio.run(run_now(url, count))
    until(lambda: any("/db/outcomes/" in answer.path for answer in page.answers(since)), 3 * POLL_SECONDS)
    time.sleep(1)  # for the strips of the rows that are shown
    answers = page.answers(since)
    told = max(answer.asked for answer in answers if "/db/changes/" in answer.path)
    answers = [answer for answer in answers if answer.asked >= told and "/db/" in answer.path]
    return Shown((max(answer.answered for answer in answers) - told) / 1000, len(answers), sum(a.size for a in answers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--routines", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=60, help="how long the idle page is watched")
    options = parser.parse_args()
    if MISSING:
        raise SystemExit(f"Skipped: {MISSING}")
    print(f"An overview of {options.routines:,} routines; {machine()}\n")
    with server() as url, tempfile.TemporaryDirectory() as profile:
        key = asyncio.run(fill(url, options.routines))
        with api_process(url) as api, chromium(Path(profile)) as driver:
            page = Page(driver, api.url, key)
            page.sign_in()
            with page.console.script(WATCH):
                visits = opened(page, options.rounds)
                rows, title = driver.execute_script(VISIBLE), driver.title
                resting = idle(page, options.seconds)
                refreshes = {count: changed(page, url, count) for count in (1, 100)}
    tables(visits, resting, refreshes)
    print(f"\nRows at {SCREEN[0]} x {SCREEN[1]}: {rows}. Title: {title}")
    judge(visits, rows)


def tables(visits: dict[tuple[str, str], list[Shown]], resting: Shown, refreshes: dict[int, Shown]) -> None:
    """Print what was measured."""
    table(
        ["visit", "headline", "requests", "KB", "s, median", "range"],
        [
            (visit, name, median([s.requests for s in all_]), f"{median([s.size for s in all_]) / 1000:,.1f}",
             f"{median([s.seconds for s in all_]):.2f}", f"{min(all_).seconds:.2f}-{max(all_).seconds:.2f}")
            for (visit, name), all_ in visits.items()
        ],
    )  # fmt: skip
    print()
    per_minute = 60 / resting.seconds
    quiet = Shown(60, round(resting.requests * per_minute), round(resting.size * per_minute))
    rows = {"a minute without a change": quiet} | {f"runs of {count}": found for count, found in refreshes.items()}
    table(
        ["then", "requests", "KB", "s"],
        [(name, each.requests, f"{each.size / 1000:.1f}", f"{each.seconds:.2f}") for name, each in rows.items()],
    )


def judge(visits: dict[tuple[str, str], list[Shown]], rows: int) -> None:
    """Exit with an error if a bound is not held."""
    size, seconds = (median([shown[field] for shown in visits["first", "first"]]) for field in (2, 0))
    if size > MAX_BYTES or seconds > MAX_SECONDS or rows < MIN_ROWS:
        raise SystemExit(
            f"A bound is not held: {MAX_BYTES:,} bytes and {MAX_SECONDS:g} s to the headline, {MIN_ROWS} rows."
        )


if __name__ == "__main__":
    main()
