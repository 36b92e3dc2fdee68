"""Keep the parts of `routines up` running: start them, restart what dies, stop them all."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from routines_core.lifecycle import LIFELINE_VARIABLE, sleep_or_stop, wait_or_stop

FIRST_BACKOFF_SECONDS = 0.5
"""The wait before a part that died is started again; each death in a row doubles it."""
LONGEST_BACKOFF_SECONDS = 10.0
HEALTHY_SECONDS = 30.0
"""A part that ran this long is taken for healthy: its next death counts as the first."""
STOP_SECONDS = 6.0
"""How long a part may take to finish what it has in hand before it is killed."""

log = structlog.get_logger("up")


@dataclass(frozen=True)
class Supervisor:
    """Runs parts as child processes of this one.

    Attributes:
        environment: What the parts get to see, over this process's own environment.
        own: What one of them alone gets to see, over that.
        stop: Once set, every part is asked to stop, and `keep` returns when it has.
    """

    environment: dict[str, str]
    stop: asyncio.Event
    own: Mapping[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])

    async def keep(self, part: str) -> None:
        """Run `routines <part>` until `stop` is set, starting it again with backoff whenever it dies."""
        backoff = FIRST_BACKOFF_SECONDS
        while not self.stop.is_set():
            started = asyncio.get_running_loop().time()
            code = await self._run(part)
            if self.stop.is_set():
                return
            if asyncio.get_running_loop().time() - started > HEALTHY_SECONDS:
                backoff = FIRST_BACKOFF_SECONDS
            log.error("part died, starting it again", part=part, exit_code=code, seconds=backoff)
            await sleep_or_stop(self.stop, backoff)
            backoff = min(2 * backoff, LONGEST_BACKOFF_SECONDS)

    async def _run(self, part: str) -> int:
        """One life of a part: its exit code."""
        read_end, write_end = os.pipe()  # the kernel closes our write end whatever ends us: see lifecycle.py
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "routines_cli.main",
                part,
                stdin=asyncio.subprocess.DEVNULL,
                env={**os.environ, **self.environment, **self.own.get(part, {}), LIFELINE_VARIABLE: str(read_end)},
                pass_fds=[read_end],
                start_new_session=True,  # Ctrl-C reaches us alone: we stop the parts, in order
            )
            os.close(read_end)
            return await self._wait(process)
        finally:
            os.close(write_end)

    async def _wait(self, process: asyncio.subprocess.Process) -> int:
        ended = asyncio.ensure_future(process.wait())
        await wait_or_stop(self.stop, [ended])
        if not ended.done():
            process.send_signal(signal.SIGTERM)
            await asyncio.wait({ended}, timeout=STOP_SECONDS)
        if not ended.done():
            process.kill()
        return await ended
