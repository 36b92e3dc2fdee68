"""Keeps the programs of `routines up` running: starts them, restarts those that die, and stops them all."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from routines_core.lifecycle import LIFELINE_VARIABLE, sleep_or_stop, wait_or_stop
from routines_core.logging import describe

FIRST_BACKOFF_SECONDS = 0.5
"""Delay before a program that died is restarted; doubles with each death in a row."""
LONGEST_BACKOFF_SECONDS = 10.0
HEALTHY_SECONDS = 30.0
"""After running this long a program counts as healthy, and its next death as the first."""
STOP_SECONDS = 6.0
"""Time a program has to finish its current work before it is killed."""

log = structlog.get_logger("up")


@dataclass(frozen=True)
class Supervisor:
    """Runs programs as child processes of this one.

    Attributes:
        environment: Environment variables for all programs, over those of this process.
        stop: Once set, every program is asked to stop, and `keep` returns when it has.
        own: Further environment variables by program.
    """

    environment: dict[str, str]
    stop: asyncio.Event
    own: Mapping[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])

    async def keep(self, program: str) -> None:
        """Run `routines <program>` until `stop` is set, restarting it with backoff whenever it dies."""
        backoff = FIRST_BACKOFF_SECONDS
        while not self.stop.is_set():
            started = asyncio.get_running_loop().time()
            code = await self._run_or_say_why_not(program)
            if self.stop.is_set():
                return
            if asyncio.get_running_loop().time() - started > HEALTHY_SECONDS:
                backoff = FIRST_BACKOFF_SECONDS
            log.error("program died, restarting it", program=program, exit_code=code, seconds=backoff)
            await sleep_or_stop(self.stop, backoff)
            backoff = min(2 * backoff, LONGEST_BACKOFF_SECONDS)

    async def _run_or_say_why_not(self, program: str) -> int | None:
        """Run a program once and return its exit code; None if the system did not let it start."""
        try:
            return await self._run(program)
        except OSError as error:  # too many processes or files; the other programs go on
            log.error("program not started", program=program, **describe(error))  # noqa: TRY400 - it says all
            return None

    async def _run(self, program: str) -> int:
        """Run a program once and return its exit code."""
        read_end, write_end = os.pipe()  # the kernel closes our write end however we end: see lifecycle.py
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "routines_cli.main",
                program,
                stdin=asyncio.subprocess.DEVNULL,
                env={**os.environ, **self.environment, **self.own.get(program, {}), LIFELINE_VARIABLE: str(read_end)},
                pass_fds=[read_end],
                start_new_session=True,  # Ctrl-C must reach only us: we stop the programs in an orderly way
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
