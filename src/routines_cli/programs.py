"""What every program does when it starts and when it ends."""

import os
from collections.abc import Awaitable, Callable

import structlog

from routines_core.lifecycle import LIFELINE_VARIABLE, finish, raise_open_files
from routines_core.logging import configure_logging
from routines_core.settings import Settings, misspelt_variables

log = structlog.get_logger("settings")


async def run_program(program: Callable[[Settings], Awaitable[None]], settings: Settings) -> None:
    """Run a program until it ends. Whatever signals come after that no longer matter."""
    try:
        raise_open_files()
        configure_logging(settings.log_format)
        if LIFELINE_VARIABLE not in os.environ:  # otherwise the supervisor has said so
            name_misspelt_variables()
        await program(settings)
    finally:
        finish()


def name_misspelt_variables() -> None:
    """Say in the log which variables look like settings and are none."""
    for name, nearest in misspelt_variables().items():
        log.warning("unknown variable, ignored", variable=name, **({"did_you_mean": nearest} if nearest else {}))
