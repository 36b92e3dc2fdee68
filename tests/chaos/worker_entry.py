"""Run `routines worker` with one more activity, for tests: a step that takes time and records each execution.

The product is unchanged. Worker._execute is wrapped only to tell the step which run and fence it works for.
"""

import asyncio
import contextvars
import json
import os
import signal
import time
from pathlib import Path

import msgspec

from routines_core.db.runs import Claim
from routines_core.logging import configure_logging
from routines_core.settings import load_settings
from routines_engine.runs.worker import Worker, run_worker
from routines_workflow.activity import StepContext, activity

OFF_BY_SECONDS = float(os.environ.get("WRONG_CLOCK_SECONDS", "0"))
"""Subtracted so that the trace has the true time, even if this process sees a wrong one."""
TRACE = os.open(Path(os.environ["CHAOS_TRACE"]), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
CLAIM: contextvars.ContextVar[Claim] = contextvars.ContextVar("claim")


class Work(msgspec.Struct, forbid_unknown_fields=True):
    """How long the step works, whether it raises, and whether it kills its worker."""

    step: str
    seconds: float = 0
    fails: bool = False
    kills: bool = False


@activity("Works for a while and records the execution.", Work)
async def chaos_work(given: Work, _: StepContext) -> Work:
    """Return its own parameters.

    Raises:
        ValueError: It was told to fail.
    """
    claim = CLAIM.get()
    trace = {
        "trajectory_id": claim.id,
        "step": given.step,
        "fence": claim.fence,
        "at": time.time() - OFF_BY_SECONDS,
    }
    os.write(TRACE, json.dumps(trace).encode() + b"\n")  # a single write, so that lines never mix
    if given.kills:
        os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.sleep(given.seconds)
    if given.fails:
        raise ValueError("told to fail")
    return given


execute = Worker._execute


async def _execute(worker: Worker, run: Claim) -> None:
    CLAIM.set(run)
    await execute(worker, run)


Worker._execute = _execute

if __name__ == "__main__":
    settings = load_settings()
    configure_logging(settings.log_format)
    assert settings.database_url
    asyncio.run(run_worker(settings, settings.database_url))
