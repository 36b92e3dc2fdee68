"""Take one run through two workers, step by step: the first loses it, the second claims it, the first writes late.

`python late_writer.py URL_OF_FIRST URL_OF_SECOND LEASE_SECONDS`, with the source under test on PYTHONPATH.
"""

import asyncio
import sys

from routines_core.db import Connection, connect, runs
from routines_core.db.runs import StepRecord

STEPS = [StepRecord(name, position, "completed", "chaos_work", {}, {}) for position, name in enumerate(("one", "two"))]


async def _until(connection: Connection, query: str) -> None:
    """Wait until the query returns true."""
    while True:
        row = await (await connection.execute(query.encode())).fetchone()
        if row and row[0]:
            return
        await asyncio.sleep(0.02)


async def main(first_url: str, second_url: str, lease_seconds: float) -> None:
    """Claim, lose, claim again, write late."""
    lease = {"lease_seconds": lease_seconds}
    async with connect(first_url, "first") as first, connect(second_url, "second") as second:
        [lost] = await runs.claim(first, capacity=1, worker="first", deadline_seconds=600, **lease)
        await runs.checkpoint(first, lost, STEPS[0], **lease)
        await runs.reap(second)  # the lease has not expired, so nothing may happen
        await _until(second, "SELECT coalesce(min(lease_expires_at), now()) <= now() FROM routines.trajectories")
        await runs.reap(second)
        await runs.claim(second, capacity=1, worker="second", deadline_seconds=600, **lease)
        await runs.checkpoint(first, lost, STEPS[1], **lease)
        await runs.renew(first, [(lost.id, lost.fence)], **lease)
        await runs.finish(first, lost, error="late")


asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
