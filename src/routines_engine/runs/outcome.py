"""What the workers of both engines do with a run they have claimed: execute it, and write how it ended."""

import asyncio
from typing import TYPE_CHECKING

import structlog

from routines_core.db.runs import Claim
from routines_core.diagnosis import is_own_trouble
from routines_core.errors import InvalidError, RoutinesError
from routines_core.logging import describe
from routines_engine.runs.claimed_run import LostRunError, WaitsForChildrenError, named
from routines_engine.runs.host import RunHost
from routines_engine.sandbox.messages import Ended
from routines_engine.sandbox.pool import RunDiedError
from routines_engine.steps.stepper import OWN_TROUBLE_SECONDS

if TYPE_CHECKING:
    from routines_engine.runs.base import Executor

log = structlog.get_logger("worker")


async def outcome_of(executor: "Executor", host: RunHost, seconds: float | None) -> Ended | None:
    """Run the workflow for at most this time; None for no such limit.

    Returns:
        How it ended; None if it waits for its children without a worker.

    Raises:
        LostRunError: The run no longer belongs to this worker.
    """
    run = host.record.services.claimed.run
    try:
        async with asyncio.timeout(seconds):
            return await executor.run(run.collection_id, host, await host.load())
    except LostRunError:
        raise
    except WaitsForChildrenError:
        return None
    except TimeoutError:
        return Ended(run.id, "deadline exceeded: the run took longer than it may")
    except RunDiedError as died:
        return Ended(run.id, str(await host.fail(died)))
    except Exception as error:  # noqa: BLE001 - a run must end, whatever is wrong with it
        return _failed(run, error)
    finally:
        host.delivered()


def _failed(run: Claim, error: Exception) -> Ended:
    """Return how a run ends because of an error, or that it waits until the worker's own trouble is over."""
    if is_own_trouble(error):
        return Ended(run.id, wait_seconds=OWN_TROUBLE_SECONDS)
    if isinstance(error, RoutinesError):
        return Ended(run.id, str(error))
    # Without a traceback, which may show what steps were given.
    log.error("flow failed unexpectedly", **named(run), **describe(error))
    return Ended(run.id, f"internal error: {type(error).__name__}")


async def write_end(host: RunHost, error: str | None) -> str | None:
    """Write the end of the run. Returns the error that was written; None if the run completed.

    Raises:
        LostRunError: The run no longer belongs to this worker.
    """
    try:
        await host.record.end(error)
    except InvalidError as cause:  # the last step's outputs cannot be stored
        error = str(cause)
        await host.record.end(error)
    log.info("run ended", **named(host.record.services.claimed.run), failed=error is not None)
    return error
