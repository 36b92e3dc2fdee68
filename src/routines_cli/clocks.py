"""What `routines doctor` and `routines recompute` do about slots that new time zone data has moved."""

from datetime import datetime

from routines_core.db import Connection, clocks


async def examine(connection: Connection) -> tuple[str, bool]:
    """Return a line on slots that new time zone data has moved, and whether there are none."""
    moved = [each async for each in clocks.moved_slots(connection)]
    if not moved:
        return "all coming slots are where the time zones of this server have them", True
    first = moved[0]
    return (
        (
            f"newer time zone data moves slots of {len(moved)} routines, such as {first.routine} "
            f"from {_utc(first.kept)} to {_utc(first.computed)} ({first.timezone}): run `routines recompute`"
        ),
        False,
    )


async def recompute(connection: Connection) -> list[str]:
    """Move the slots. Returns a line for each routine, and one that counts them."""
    lines = [
        f"{each.routine}\tfrom {_utc(each.kept)} to {_utc(each.computed)}\t{each.timezone}"
        for each in [each async for each in clocks.moved_slots(connection)]
        if await clocks.recompute(connection, each.routine_id)
    ]
    return [*lines, f"moved the slots of {len(lines)} routines"]


def _utc(time: datetime | None) -> str:
    return "none" if time is None else f"{time:%Y-%m-%dT%H:%M:%SZ}"
