"""Which engine `routines worker` is, and what is said of it: Temporal's SDK is imported where it was chosen alone."""

from importlib.util import find_spec

from routines_core.db import Connection, dispatches
from routines_core.errors import ConfigurationError, RoutinesError
from routines_core.settings import Settings


async def run_engine(settings: Settings, database_url: str) -> None:
    """Run the worker of the chosen engine until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: A setting is wrong, or the engine is not installed.
    """
    if settings.engine == "temporal":
        _require_sdk()
        from routines_engine.temporal.program import run_temporal_worker

        await run_temporal_worker(settings, database_url)
        return
    from routines_engine.runs.worker import run_worker

    await run_worker(settings, database_url)


async def require_engine(settings: Settings) -> None:
    """Refuse to go on where the chosen engine cannot be reached.

    Raises:
        ConfigurationError: Temporal's SDK is not installed.
        RoutinesError: Temporal is away or unfit; the message names the setting.
    """
    if settings.engine == "temporal":
        _require_sdk()
        from routines_engine.temporal.connection import connect

        await connect(settings)


async def examine_engine(settings: Settings, connection: Connection | None, *, quick: bool) -> tuple[str, bool]:
    """A line on the chosen engine for `routines doctor`, and whether it can work.

    Args:
        settings: Which it is, and where.
        connection: To the database, which knows what Temporal has in hand; None: its schema is not up to date.
        quick: Do not ask Temporal: it being away makes nothing else unhealthy.
    """
    dispatched = await dispatches.open_dispatches(connection) if connection else None
    held = (
        f"{dispatched.runs} runs in Temporal's hands, {dispatched.unsubmitted} not known to be there"
        if dispatched
        else ""
    )
    if settings.engine == "postgres":
        # What is left of the other engine needs a worker of that one.
        return (f"postgres; {held}" if dispatched and dispatched.runs else "postgres"), True
    place = f"temporal at {settings.temporal_address}, namespace {settings.temporal_namespace}"
    if quick:
        return f"{place}: not asked", True
    try:
        await require_engine(settings)
    except RoutinesError as error:
        return f"{place}; {held}. {error}", False
    return f"{place}: reachable; {held}", True


def _require_sdk() -> None:
    if find_spec("temporalio") is None:
        raise ConfigurationError(
            "ROUTINES_ENGINE=temporal needs Temporal's Python SDK: pip install 'routines[temporal]'."
        )
