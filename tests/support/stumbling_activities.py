"""An activity that fails at first and then takes a while. Step processes import this module."""

import asyncio

import msgspec

from routines_engine.sandbox.pool import ProcessPool
from routines_workflow.activity import StepContext, activity


class Stumble(msgspec.Struct):
    """How often it fails first, and how long it takes afterwards."""

    times: int = 0
    seconds: float = 0


@activity("Fails at first, and then takes a while.", Stumble)
async def stumble_and_work(given: Stumble, context: StepContext) -> Stumble:
    """Return its own parameters.

    Raises:
        ValueError: It has not failed often enough.
    """
    if context.attempt <= given.times:
        raise ValueError("no luck")
    await asyncio.sleep(given.seconds)
    return given


def stumbling_pool() -> ProcessPool:
    """Return step processes that know the activity."""
    return ProcessPool(spare=0, modules=["support.stumbling_activities"])
