"""`routines worker` for tests, with an activity that leaves a trace and a crash at a chosen moment.

Otherwise the product is unchanged. CRASH_AT names the action before which the process is killed by SIGKILL.
"""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import msgspec

from routines_cli.engines import run_engine
from routines_core.logging import configure_logging
from routines_core.settings import load_settings
from routines_workflow.activity import StepContext, activity

TRACE = Path(os.environ["TRACE"])


class Work(msgspec.Struct, forbid_unknown_fields=True):
    """How long the step works, and how often it kills its worker first."""

    seconds: float = 0
    kills: int = 0


def traces() -> list[dict[str, Any]]:
    return [json.loads(line) for line in TRACE.read_text("utf-8").splitlines()]


@activity("Works for a while, and leaves a trace.", Work)
async def traced_work(given: Work, context: StepContext) -> Work:
    line = {"step": context.step, "key": context.idempotency_key, "try": context.attempt}
    with TRACE.open("a", encoding="utf-8") as file:  # noqa: ASYNC230
        file.write(json.dumps(line) + "\n")
    if sum(trace["key"] == context.idempotency_key for trace in traces()) <= given.kills:
        os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.sleep(given.seconds)
    return given


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm() -> None:
    """Place the crash."""
    from routines_core.db import dispatches
    from routines_engine.temporal import dispatcher

    if moment := os.environ.get("CRASH_AT"):
        {"submit": lambda: setattr(dispatcher, "submit", die), "record": lambda: setattr(dispatches, "submitted", die)}[
            moment
        ]()


if __name__ == "__main__":
    settings = load_settings()
    configure_logging(settings.log_format)
    assert settings.database_url
    arm()
    asyncio.run(run_engine(settings, settings.database_url))
