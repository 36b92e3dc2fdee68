"""Measures what each collection has stored, for its limit."""

import asyncio

from routines_core.bulkhead import Bulkhead
from routines_core.db import connect
from routines_core.db.limits import measure_stored_bytes
from routines_core.lifecycle import sleep_or_stop

MEASURE_SECONDS = 300.0
"""Interval between measurements of each worker."""
MOST_PAGES = 1000
"""The size of the sample, in pages of each table. On larger tables the estimate of a collection that fills a tenth of
them is off by a few per cent."""


async def run_measuring(database_url: str, stop: asyncio.Event, bulkhead: Bulkhead) -> None:
    """Measure every five minutes until `stop` is set, each time on a connection of its own."""
    while not stop.is_set():
        try:
            async with connect(
                database_url, "routines-retention", role="routines_worker", statement_timeout="30s"
            ) as connection:
                await measure_stored_bytes(connection, most_pages=MOST_PAGES)
        except Exception as error:  # noqa: BLE001 - the limit goes by the last estimate
            await sleep_or_stop(stop, min(MEASURE_SECONDS, bulkhead.failed(error)))
        else:
            bulkhead.worked()
            await sleep_or_stop(stop, MEASURE_SECONDS)
