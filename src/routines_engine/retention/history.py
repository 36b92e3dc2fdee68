"""Deletes old rows, one worker at a time and one page at a time."""

import asyncio
from datetime import datetime

import structlog

from routines_core.bulkhead import Bulkhead
from routines_core.db import Connection, connect
from routines_core.db.retention import What, delete_page, one_pass
from routines_core.files.store import FileStore
from routines_core.lifecycle import sleep_or_stop
from routines_core.metrics.program import ProgramMetrics
from routines_core.settings import Settings
from routines_engine.retention.files import delete_unused_files
from routines_engine.retention.measuring import run_measuring
from routines_engine.retention.summing import run_summing

PASS_SECONDS = 3600.0
"""How often a pass begins."""
PAUSE_SECONDS = 0.05
"""Pause after each page, so that a large pass does not crowd out other work."""
RETRY_SECONDS = 600.0, 10.0
"""Longest and first delay before a pass that failed is repeated."""
DAY_SECONDS = 86400.0

log = structlog.get_logger("retention")


def ages_in_seconds(settings: Settings) -> dict[What, float]:
    """Return the tables to prune, in order, with their maximum age in seconds; tables kept forever are left out."""
    days: dict[What, float] = {
        "alerts": settings.keep_alerts_days,
        "deliveries": settings.keep_deliveries_days,
        "trajectories": settings.keep_trajectories_days,
        "skips": settings.keep_skips_days,
        "audit": settings.keep_audit_days,
    }
    kept: dict[What, float] = {what: age * DAY_SECONDS for what, age in days.items() if age > 0}
    # After the trajectories, which refer to versions and backfills, and the skips. Their ages are part of their SQL.
    return {**kept, "versions": 0, "names": 0, "backfills": 0, "endpoints": 0, "answers": 0}


async def delete_old(
    connection: Connection, settings: Settings, stop: asyncio.Event, *, now: datetime | None = None
) -> dict[What, int]:
    """Make one pass. Returns the rows deleted by table; empty if another session is making a pass."""
    deleted: dict[What, int] = {}
    async with one_pass(connection) as is_ours:
        if is_ours:
            for what, keep_seconds in ages_in_seconds(settings).items():
                deleted[what] = await _delete(connection, what, keep_seconds, stop, now)
    return deleted


async def _delete(
    connection: Connection, what: What, keep_seconds: float, stop: asyncio.Event, now: datetime | None
) -> int:
    deleted, after = 0, 0
    while not stop.is_set():
        page = await delete_page(connection, what, keep_seconds=keep_seconds, after=after, now=now)
        deleted, after = deleted + page.deleted, page.last_id or 0
        if page.is_last:
            break
        await sleep_or_stop(stop, PAUSE_SECONDS)
    return deleted


async def run_retention(
    settings: Settings, database_url: str, stop: asyncio.Event, files: FileStore, metrics: ProgramMetrics
) -> None:
    """Make a pass every hour until `stop` is set, each on a connection of its own.

    Also measure what is stored, and sum up days that are over.
    """
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(
            _make_passes(
                settings, database_url, stop, files, Bulkhead("retention", metrics.loop_failed, *RETRY_SECONDS)
            )
        )
        tasks.create_task(run_measuring(database_url, stop, Bulkhead("measuring", metrics.loop_failed, *RETRY_SECONDS)))
        tasks.create_task(run_summing(database_url, stop, Bulkhead("summing", metrics.loop_failed, *RETRY_SECONDS)))


async def _make_passes(
    settings: Settings, database_url: str, stop: asyncio.Event, files: FileStore, bulkhead: Bulkhead
) -> None:
    while not stop.is_set():
        try:
            async with connect(
                database_url, "routines-retention", role="routines_worker", statement_timeout="30s"
            ) as connection:
                deleted: dict[str, int] = {**await delete_old(connection, settings, stop)}
                deleted["files"] = await delete_unused_files(connection, settings, files, stop)
        except Exception as error:  # noqa: BLE001 - the next pass deletes what this one did not
            await sleep_or_stop(stop, bulkhead.failed(error))
            continue
        else:
            bulkhead.worked()
            if any(deleted.values()):
                log.info("old rows and files deleted", **deleted)
        await sleep_or_stop(stop, PASS_SECONDS)
