"""How late the event loop of a program runs a callback that is due.

While a callback works, the loop does nothing else: no request is answered and no lease is renewed.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from prometheus_client.registry import CollectorRegistry

from routines_core.metrics.distribution import Distribution

INTERVAL_SECONDS = 0.1
"""How often the loop is checked. A stall is observed if it covers the moment of a check, from that moment on."""
LAG_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
"""Seconds. Of a healthy loop nearly all are below 0.05."""


class LoopLag:
    """The event-loop lag of one program.

    Args:
        registry: Registry that exposes it.
        program: The value of its label.
    """

    def __init__(self, registry: CollectorRegistry, program: str) -> None:
        self._program = program
        self._seconds = Distribution(
            registry,
            "routines_process_event_loop_lag_seconds",
            "How late the event loop ran a callback that was due, checked ten times a second.",
            LAG_BUCKETS,
            ["program"],
        )
        self._seconds.observe(0.0, program, times=0)  # shown from the start

    @asynccontextmanager
    async def observed(self) -> AsyncGenerator[None]:
        """Observe the running loop within the block."""
        observing = asyncio.create_task(self._observe())
        try:
            yield
        finally:
            observing.cancel()
            await asyncio.wait({observing})

    async def _observe(self) -> None:
        while True:
            due_at = time.monotonic() + INTERVAL_SECONDS
            await asyncio.sleep(INTERVAL_SECONDS)
            self._seconds.observe(max(0.0, time.monotonic() - due_at), self._program)
