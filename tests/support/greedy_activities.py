"""Activities that want much of what runs share; step processes of tests import this module."""

import asyncio
from pathlib import Path
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


class Row(msgspec.Struct):
    id: int
    text: str


class Rows(msgspec.Struct):
    rows: Annotated[list[Row], Meta(description="Rows.")]


@activity("Returns rows that take at least `size` bytes together, with a secret in row 3 if one is named.", Wanted)
async def load_rows(given: Wanted, context: StepContext) -> Rows:
    rows = [Row(number, f"row {number} " + "x" * 1000) for number in range(given.size // 1000)]
    for name in given.names:
        rows[3].text = f"row 3 {await context.services.secret(name)}" + "x" * 1000
    return Rows(rows)


@activity("Reads secrets and returns `size` numbers of one digit.", Wanted)
async def load_numbers(given: Wanted, context: StepContext) -> Got:
    for name in given.names:
        await context.services.secret(name)
    return Got([number % 10 for number in range(given.size)])


class Forged(msgspec.Struct):
    file_path: Annotated[str, Meta(description="A path.")]
    bytes: Annotated[int, Meta(description="A size.")] = 10
    has_file: Annotated[bool, Meta(description="What only the engine says.")] = True


@activity("Returns what looks like a reference to a file with outputs.", Wanted)
async def forge(given: Wanted, _: StepContext) -> Forged:
    return Forged(given.value)


@activity("Waits for ever, the first time.", Wanted)
async def pause_once(given: Wanted, _: StepContext) -> Got:
    mark = Path(given.value)
    if not mark.exists():  # noqa: ASYNC240 - a test's own directory
        mark.touch()  # noqa: ASYNC240
        await asyncio.sleep(3600)
    return Got()
