"""Activities that want much of what runs share; step processes of tests import this module."""

import asyncio
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from routines_workflow.activity import StepContext, activity


class Wanted(msgspec.Struct):
    names: Annotated[list[str], Meta(description="Names of secrets or files.")] = []
    size: Annotated[int, Meta(description="How large each is, in bytes.")] = 0
    value: Annotated[Any, Meta(description="What to return.")] = None


class Got(msgspec.Struct):
    value: Annotated[Any, Meta(description="What came of it.")] = None


@activity("Reads secrets, one after the other, and returns them.", Wanted)
async def read_secrets(given: Wanted, context: StepContext) -> Got:
    return Got([await context.services.secret(name) for name in given.names])


@activity("Saves files, all at once.", Wanted)
async def save_files(given: Wanted, context: StepContext) -> Got:
    content = b"x" * given.size
    saved = await asyncio.gather(
        *(context.services.save_file(name, content) for name in given.names), return_exceptions=True
    )
    errors = [each for each in saved if isinstance(each, BaseException)]
    if errors:
        raise errors[0]
    return Got(saved)


@activity("Fails.", Wanted)
async def fail(given: Wanted, context: StepContext) -> Got:
    raise ValueError(f"attempt {context.attempt}")
