"""The activity of the tests that kill workers of Temporal. Step processes import this module."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import msgspec

from routines_workflow.activity import StepContext, activity

TRACE = Path(os.environ["TRACE"])


class Work(msgspec.Struct, forbid_unknown_fields=True):
    """How long the step works, how often it kills its worker first, and how often it fails."""

    seconds: float = 0
    kills: int = 0
    fails: int = 0


def traces() -> list[dict[str, Any]]:
    return [json.loads(line) for line in TRACE.read_text("utf-8").splitlines()]


@activity("Works for a while and records a trace.", Work)
async def traced_work(given: Work, context: StepContext) -> Work:
    line = {"step": context.step, "key": context.idempotency_key, "try": context.attempt}
    with TRACE.open("a", encoding="utf-8") as file:  # noqa: ASYNC230
        file.write(json.dumps(line) + "\n")
    if sum(trace["key"] == context.idempotency_key for trace in traces()) <= given.kills:
        os.kill(os.getppid(), signal.SIGKILL)
    if context.attempt <= given.fails:
        raise ValueError("no luck")
    await asyncio.sleep(given.seconds)
    return given
