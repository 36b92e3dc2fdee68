"""Check what fires that fail to start lead to: three in a row pause their routine, and nothing else pauses one."""

from collections import defaultdict
from collections.abc import Generator
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from chaos.history import History
from chaos.stretches import Violation, pause_lasts

MAX_STRIKES = 3
SLACK_SECONDS = timedelta(seconds=6)
"""An order's time is the start of its transaction, which may wait for a running tick."""
Found = Generator[Violation]


def strikes_pause(history: History) -> Found:
    """Check that only fires that fail to start count as strikes, and that three in a row pause, with the reason."""
    last_order = {order.routine_id: order for order in history.orders}
    paused_at = _pauses_by_the_product(history)
    failed: dict[int, list[datetime]] = defaultdict(list)
    for skip in history.skips:
        if skip.reason == "failed_to_start":
            failed[skip.routine_id].append(skip.recorded_at)
    for routine in history.routines:
        order = last_order.get(routine.id)
        by_itself = order and routine.paused and not pause_lasts(order, routine.paused_at)
        if (by_itself or routine.strikes) and not (order and order.heavy):
            yield Violation(
                "paused", f"routine {routine.id} got a strike or was paused, and no order explains it", (routine, order)
            )
        if (routine.paused_reason is not None) != bool(by_itself) and not (order and order.heavy):
            yield Violation("paused", f"routine {routine.id} is paused for the wrong reason", (routine, order))
    for routine_id, times in paused_at.items():
        for time in times:
            if failed[routine_id].count(time) != 1 or sum(at <= time for at in failed[routine_id]) < MAX_STRIKES:
                yield Violation("paused", f"routine {routine_id} was paused at {time} without three strikes")
    yield from _three_strikes_pause(history, failed, paused_at)


def _pauses_by_the_product(history: History) -> dict[int, set[datetime]]:
    """Return, by routine, the times at which it was paused without an order."""
    found: dict[int, set[datetime]] = defaultdict(set)
    own: dict[int, list[Any]] = defaultdict(list)
    for order in history.orders:
        own[order.routine_id].append(order)
    for routine_id, orders in own.items():
        found[routine_id] |= {
            order.was_paused_at
            for before, order in pairwise(orders)
            if order.was_paused_at and not pause_lasts(before, order.was_paused_at)
        }
    for routine in history.routines:
        if own[routine.id] and routine.paused and not pause_lasts(own[routine.id][-1], routine.paused_at):
            found[routine.id].add(routine.paused_at)
    return found


def _three_strikes_pause(
    history: History, failed: dict[int, list[datetime]], paused_at: dict[int, set[datetime]]
) -> Found:
    """Check that three strikes in a row pause a routine.

    Changing the cadence or resuming restarts the count; `due` and similar orders do not.
    """
    anew: dict[int, list[datetime]] = defaultdict(list)
    for order in history.orders:
        if order.kind not in {"due", "past", "again", "rewind"}:
            anew[order.routine_id].append(order.at)
    for routine_id, times in failed.items():
        for first, third in zip(times, times[MAX_STRIKES - 1 :], strict=False):
            untouched = not any(first - SLACK_SECONDS <= at <= third + SLACK_SECONDS for at in anew[routine_id])
            struck_out = any(first <= at <= third for at in paused_at[routine_id])
            if untouched and not struck_out:
                yield Violation(
                    "paused", f"routine {routine_id} failed to start three times and was not paused", (third,)
                )
