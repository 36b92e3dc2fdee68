"""Activities that misbehave; the step processes of tests import this module."""

import asyncio
import os
import time
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from routines_workflow.activity import ACTIVITIES, StepContext, activity


class Given(msgspec.Struct):
    value: Annotated[Any, Meta(description="Anything.")] = None
    seconds: Annotated[float, Meta(description="How long.")] = 60.0
    fail_at: Annotated[int, Meta(description="The last attempt that misbehaves.")] = 1_000_000


class Done(msgspec.Struct):
    value: Annotated[Any, Meta(description="What was given, or the process id.")] = None


@activity("Keeps the event loop busy.", Given)
async def stall(given: Given, context: StepContext) -> Done:
    until = time.monotonic() + given.seconds
    while context.attempt <= given.fail_at and time.monotonic() < until:
        pass
    return Done(os.getpid())


@activity("Allocates without end.", Given)
async def hoard(given: Given, context: StepContext) -> Done:
    held = []
    while context.attempt <= given.fail_at:
        held.append(bytearray(1024 * 1024))
    return Done(len(held))


@activity("Ends its process.", Given)
async def vanish(given: Given, context: StepContext) -> Done:
    if context.attempt <= given.fail_at:
        os._exit(1)
    return Done(os.getpid())


@activity("Tells where it runs.", Given)
async def whereabouts(given: Given, _: StepContext) -> Done:
    return Done({"pid": os.getpid(), "environment": sorted(os.environ)})


@activity("Waits without using the processor.", Given)
async def linger(given: Given, _: StepContext) -> Done:
    await asyncio.sleep(given.seconds)
    return Done(os.getpid())


class Reluctant(Given):
    pass


class _Endless(dict[str, str]):
    """Raw parameters whose lookup never returns: stands for a config that is expensive to read."""

    def __contains__(self, _: object) -> bool:
        while True:
            pass


@activity("Takes for ever to be prepared.", Reluctant)
async def stall_when_read(given: Reluctant, _: StepContext) -> Done:
    return Done()


ACTIVITIES["stall_when_read"].__dict__["raw"] = _Endless()
