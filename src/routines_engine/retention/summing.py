"""Sums up days that are over, so that a report of a month need not read every run."""

import asyncio
from typing import get_args

from routines_core.bulkhead import Bulkhead
from routines_core.db import connect
from routines_core.db.day_sums import Part, sum_up
from routines_core.lifecycle import sleep_or_stop

SUM_SECONDS = 300.0
"""How often each worker looks for days to sum up."""
PAUSE_SECONDS = 0.2
"""Pause after each batch, so that it does not crowd out other work."""


async def run_summing(database_url: str, stop: asyncio.Event, bulkhead: Bulkhead) -> None:
    """Sum up every five minutes until `stop` is set, each time on a connection of its own."""
    while not stop.is_set():
        try:
            async with connect(
                database_url, "routines-retention", role="routines_worker", statement_timeout="30s"
            ) as connection:
                for part in get_args(Part):
                    while not stop.is_set() and await sum_up(connection, part):
                        await sleep_or_stop(stop, PAUSE_SECONDS)
        except Exception as error:  # noqa: BLE001 - reports read the runs of days that are not summed up
            await sleep_or_stop(stop, min(SUM_SECONDS, bulkhead.failed(error)))
        else:
            bulkhead.worked()
            await sleep_or_stop(stop, SUM_SECONDS)
