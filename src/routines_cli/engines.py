"""Runs and checks the engine that ROUTINES_ENGINE names; imports Temporal's SDK only for that engine."""

from importlib.util import find_spec

from routines_core.db import Connection, dispatches
from routines_core.distribution import how_to_install
from routines_core.errors import ConfigurationError, RoutinesError
from routines_core.settings import Settings


async def run_engine(settings: Settings, database_url: str) -> None:
    """Run the worker of the chosen engine until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: A setting is invalid, or the engine is not installed.
    """
    if settings.engine == "temporal":
        _require_sdk()
        from routines_engine.temporal.program import run_temporal_worker

        await run_temporal_worker(settings, database_url)
        return
    from routines_engine.runs.worker import run_worker

    await run_worker(settings, database_url)


async def require_engine(settings: Settings) -> None:
    """Check that the chosen engine can be used.

    Raises:
        ConfigurationError: Temporal's SDK is not installed.
        RoutinesError: Temporal cannot be reached or is not suitable; the message names the setting.
    """
    if settings.engine == "temporal":
        _require_sdk()
        from routines_engine.temporal.connection import connect

        await connect(settings)


async def examine_engine(settings: Settings, connection: Connection | None, *, quick: bool) -> tuple[str, bool]:
    """Check the chosen engine for `routines doctor`.

    Args:
        settings: Which engine is chosen, and where Temporal is.
        connection: For counting the runs that Temporal has; None if the schema is not up to date.
        quick: Skip Temporal itself; the other programs are healthy without it.

    Returns:
        A line on the engine, and whether it can work.
    """
    dispatched = await dispatches.open_dispatches(connection) if connection else None
    held = f"{dispatched.runs} runs handed to Temporal, {dispatched.unsubmitted} not confirmed" if dispatched else ""
    if settings.engine == "postgres":
        # Runs left over from Temporal need a worker with that engine.
        return (f"postgres; {held}" if dispatched and dispatched.runs else "postgres"), True
    server = "temporal"
    try:
        server = _server(settings)
        if quick:
            return f"{server}: not asked", True
        await require_engine(settings)
    except RoutinesError as error:
        return f"{server}; {held}. {error}", False
    return f"{server}: reachable; {held}", True


def _server(settings: Settings) -> str:
    _require_sdk()
    from routines_engine.temporal.target import target_of

    target = target_of(settings)
    return f"temporal at {target.address}, namespace {target.namespace}"


def _require_sdk() -> None:
    if find_spec("temporalio") is None:
        raise ConfigurationError(f"ROUTINES_ENGINE=temporal needs Temporal's Python SDK: {how_to_install('temporal')}.")
