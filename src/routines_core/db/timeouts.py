"""Query timeouts, for connections whose peer may have vanished."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from routines_core.errors import SilenceError

Answer = TypeVar("Answer")
HANG_UP_SECONDS = 0.1
"""How long cancelled work may take to clean up."""


async def within(seconds: float, work: Coroutine[Any, Any, Answer]) -> Answer:
    """Return the result of `work`, which is cancelled after `seconds`. Statements that it sent may still take effect.

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
        while (
            not task.done()
        ):  # after one cancel psycopg still waits for the server; the second one closes the connection
            task.cancel()
            await asyncio.wait({task}, timeout=HANG_UP_SECONDS)
