"""`routines worker` for tests, with an activity that leaves a trace and a crash at a chosen moment.

Otherwise the product is unchanged. CRASH_AT names the action before which the process is killed by SIGKILL.
"""

import asyncio
import os
import signal

from temporalio.client import Client

from routines_core.db.dispatches import Submission
from routines_core.logging import configure_logging
from routines_core.settings import load_settings
from routines_engine.temporal.program import run_temporal_worker


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm() -> None:
    """Place the crash."""
    from routines_engine.temporal.submission import Submitter

    submit = Submitter.submit

    async def submit_and_die(self: Submitter, client: Client, run: Submission) -> None:
        await submit(self, client, run)
        die()

    if moment := os.environ.get("CRASH_AT"):
        Submitter.submit = {"before": die, "after": submit_and_die}[moment]


if __name__ == "__main__":
    settings = load_settings()
    configure_logging(settings.log_format)
    assert settings.database_url
    arm()
    asyncio.run(run_temporal_worker(settings, settings.database_url, modules=["traced_activities"]))
