"""The activity of the chaos: a step that takes time and records each execution. Step processes import this module."""

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import msgspec

from routines_workflow.activity import StepContext, activity

OFF_BY_SECONDS = float(os.environ.get("CHAOS_OFF_BY_SECONDS", "0"))
"""Offset of this process's clock from the database's, subtracted so that the trace has the database's time."""
CLAIM = "the claim"
"""The name of the secret that tells a step for which run and fence it works."""


class Work(msgspec.Struct, forbid_unknown_fields=True):
    """How long the step works, whether it raises, and whether it kills its worker."""

    step: str
    seconds: float = 0
    fails: bool = False
    kills: bool = False


@activity("Works for a while and records the execution.", Work)
async def chaos_work(given: Work, context: StepContext) -> Work:
    """Return its own parameters.

    Raises:
        ValueError: It was told to fail.
    """
    claim = json.loads(await context.services.secret(CLAIM) or "{}")
    line = {**claim, "step": given.step, "at": time.time() - OFF_BY_SECONDS}
    trace = os.open(Path(os.environ["CHAOS_TRACE"]), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(trace, json.dumps(line).encode() + b"\n")  # a single write, so that lines never mix
    os.close(trace)
    if given.kills:
        os.kill(os.getppid(), signal.SIGKILL)
    await asyncio.sleep(given.seconds)
    if given.fails:
        raise ValueError("told to fail")
    return given
