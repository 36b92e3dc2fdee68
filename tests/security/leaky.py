"""A package of activities that do with a secret what no activity should: show it, raise it, log it.

`install_leaky_activities` puts it where the programs of a service find it; nothing here imports it.
"""

import asyncio
import base64
import json
import logging
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from routines_workflow.activity import StepContext, activity

_tasks: set[asyncio.Task[None]] = set()


class Given(msgspec.Struct):
    """A secret by reference, and the name of another one."""

    value: str
    name: str = ""


class Gate(msgspec.Struct):
    """A secret, and a file to wait for."""

    value: str
    file: str


class Shown(msgspec.Struct):
    """Any output."""

    value: Any


@activity("Shows a secret in each encoding, and as a name.", Given)
async def leaky_show(given: Given, context: StepContext) -> Shown:
    """Return the secret in every encoding, and another secret that the activity looks up itself."""
    raw, looked_up = given.value.encode(), str(await context.services.secret(given.name))
    shown = [
        given.value,
        f"Bearer {given.value}!",
        base64.b64encode(b"user:" + raw).decode(),
        base64.urlsafe_b64encode(raw).decode(),
        raw.hex(),
        raw.hex().upper(),
        quote(given.value),
        quote(given.value, safe=""),
        json.dumps({"token": given.value}),
        repr(raw),
    ]
    return Shown({given.value: shown, "looked up": {looked_up: looked_up}})


@activity("Raises a secret, and logs it as an error beforehand.", Given)
async def leaky_raise(given: Given, _: StepContext) -> Shown:
    """Raise an error that contains the secret.

    Raises:
        ValueError: Always.
    """
    task = asyncio.create_task(_fail(given.value))  # never awaited
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    try:
        await _fail(given.value)
    except ValueError as error:
        logging.getLogger("leaky").exception("it went wrong")
        logging.getLogger("leaky").warning("it went wrong: %s %s", error, given.value)
        raise ValueError(f"no such key: {given.value}, {given.value!r}, {given.value.encode()!r}") from error
    raise AssertionError


@activity("Waits for a file while holding a secret.", Gate)
async def leaky_wait(given: Gate, _: StepContext) -> Shown:
    """Return the secret once the file exists.

    Raises:
        ValueError: The step was cancelled; the message contains the secret.
    """
    try:
        while not Path(given.file).exists():  # noqa: ASYNC110, ASYNC240 - another process creates the file
            await asyncio.sleep(0.05)
    except asyncio.CancelledError:
        raise ValueError(f"cancelled with {given.value}") from None
    return Shown(given.value)


async def _fail(value: str) -> None:
    raise ValueError(f"bad key {value}")
