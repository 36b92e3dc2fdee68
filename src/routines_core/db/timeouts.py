"""A limit to how long an answer of the database is waited for, on a connection that may have fallen silent."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from routines_core.errors import SilenceError

Answer = TypeVar("Answer")
HANG_UP_SECONDS = 0.1
"""How long work that was given up may take to end in order."""


async def within(seconds: float, work: Coroutine[Any, Any, Answer]) -> Answer:
    """The answer of `work`, which is given up after `seconds`; what it had sent may have taken effect all the same.

    Raises:
        SilenceError: It took longer. Its connection is closed.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if task.done():
            return task.result()
        raise SilenceError(f"The database did not answer within {seconds:g} s.")
    finally:
        while not task.done():  # cancelled once, psycopg still waits for the server's word; twice, it hangs up
            task.cancel()
            await asyncio.wait({task}, timeout=HANG_UP_SECONDS)
