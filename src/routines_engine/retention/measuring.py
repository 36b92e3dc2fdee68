"""Measures what each collection has stored, for its limit."""

import asyncio

import structlog

from routines_core.db import connect
from routines_core.db.limits import measure_stored_bytes
from routines_core.db.pool import LOST
from routines_core.errors import DatabaseError
from routines_core.lifecycle import sleep_or_stop

MEASURE_SECONDS = 300.0
"""Interval between measurements of each worker."""
MOST_PAGES = 1000
"""The size of the sample, in pages of each table. On larger tables the estimate of a collection that fills a tenth of
them is off by a few per cent."""

log = structlog.get_logger("retention")


async def run_measuring(database_url: str, stop: asyncio.Event) -> None:
    """Measure every five minutes until `stop` is set, each time on a connection of its own."""
    while not stop.is_set():
        try:
            async with connect(
                database_url, "routines-retention", role="routines_worker", statement_timeout="30s"
            ) as connection:
                await measure_stored_bytes(connection, most_pages=MOST_PAGES)
        except (*LOST, DatabaseError) as error:
            log.warning("stored bytes not measured, trying again later", error=type(error).__name__)
        await sleep_or_stop(stop, MEASURE_SECONDS)
