"""Derive from the orders which slots need an outcome, and who must record it: the tickers, or an order itself.

An order is a change that the driver made. Orders divide a routine's time into stretches with one cadence each.
"""

from collections import defaultdict
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from chaos.history import History
from support.oracle import MOMENT, Cadence, is_slot, latest_slot, next_slot, slots


@dataclass(frozen=True)
class Violation:
    """A broken invariant: its name, a sentence, and the rows that show it."""

    invariant: str
    sentence: str
    rows: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return "\n    ".join([f"{self.invariant}: {self.sentence}", *map(str, self.rows)])


@dataclass(frozen=True)
class Stretch:
    """A period in which a routine had one cadence, from `first` (inclusive) to `end` (exclusive).

    Attributes:
        order: The order whose transaction settled its slots; None if the tickers handled them one by one.
    """

    cadence: Cadence
    first: datetime
    end: datetime
    order: Any = None

    def owns(self, slot: datetime) -> bool:
        """Return whether this is one of its slots."""
        return self.first <= slot < self.end and is_slot(self.cadence, slot)

    def slots(self) -> list[datetime]:
        """Return all its slots; each must have one outcome."""
        return slots(self.cadence, self.first, self.end)


@dataclass(frozen=True)
class PauseEnd:
    """The end of a pause that an order gave an end. The product owes it without an order.

    Attributes:
        at: The last moment of the pause.
        rest: The order that made the pause, or changed the cadence in it.
        became: The first slot after the pause.
    """

    at: datetime
    rest: Any
    became: datetime | None

    id = None
    kind = "end of a pause"
    paused = False
    first = None

    @property
    def settled(self) -> datetime:
        """Return the time up to which all slots have their outcome."""
        return self.at

    @property
    def cadence(self) -> Any:
        """Return the cadence, as an order has it."""
        return self.rest.cadence


def settles_until(order: Any) -> datetime:
    """Return the time up to which an order settles the slots that there were before.

    That is its time on the routine's clock. But which slots there are goes by the clock of the database.
    """
    goes_by_times = order.kind in {"create", "delete"} or (order.id and order.changes_cadence)
    return order.at + order.away if goes_by_times else order.at


def pause_end(rest: Any) -> PauseEnd:
    """Return the end of the pause that this order left behind."""
    at = max(rest.until - MOMENT, rest.settled)
    return PauseEnd(at, rest, next_slot(cadence_of(rest), at))


def is_over(order: Any, now: datetime) -> bool:
    """Return whether the pause that this order left behind was over by then."""
    return bool(order.paused and order.until and order.until <= now)


def pause_lasts(order: Any, paused_at: datetime | None) -> bool:
    """Return whether the routine is still in the pause that this order left behind, if it has been paused since then.

    After the end of the pause it may have been paused again, by three strikes.
    """
    return bool(order.paused and paused_at and not (order.until and paused_at >= order.until))


LOCK_SECONDS = timedelta(seconds=10)
"""An order's time is the start of its transaction, which may have to wait for one that ends a pause."""

Stretches = dict[int, list[Stretch]]
Found = Generator[Stretch | Violation]


def stretches_of(history: History) -> tuple[Stretches, list[Violation]]:
    """Return the stretches of every routine, deleted ones included, and the orders that next_run_at contradicts."""
    by_routine: dict[int, list[Any]] = defaultdict(list)
    for order in history.orders:
        by_routine[order.routine_id].append(order)
    present = {routine.id: routine for routine in history.routines}
    stretches: Stretches = defaultdict(list)
    violations: list[Violation] = []
    for routine, orders in by_routine.items():
        for found in _walk(orders, present.get(routine)):
            if isinstance(found, Violation):
                violations.append(found)
            else:
                stretches[routine].append(found)
    return stretches, violations


def cadence_of(row: Any) -> Cadence:
    """Return the cadence of an order or a routine."""
    return Cadence(**row.cadence)


def newest_slot(order: Any) -> datetime | None:
    """Return the newest slot of the order's cadence at the time of the order."""
    return latest_slot(cadence_of(order), order.at)


def _walk(orders: list[Any], present: Any) -> Found:
    since, *later = orders
    # A spread makes the first slots due after the routine was created, though their own times were before.
    made = settles_until(since)
    since = since._replace(settled=made)
    yield from _follows(since, next_slot(cadence_of(since), since.settled))
    for sent in later:
        order = sent._replace(changes_cadence=cadence_of(sent) != cadence_of(since))
        lasts = pause_lasts(since, order.was_paused_at)
        ended = is_over(since, order.at if lasts else order.at + LOCK_SECONDS)
        if ended and (not lasts or _touches(order, since)):
            end = pause_end(since)
            yield from _until(since, None, since.until, end)
            if lasts:  # no ticker had ended it: what was due since is up to the order
                order = order._replace(was=end.became, was_paused_at=None)
            since = end
        settles = order.kind == "delete" or order.changes_cadence or order.paused != (order.was_paused_at is not None)
        if order.kind != "delete":
            since_when = max(settles_until(order), since.settled, made)
            computed = None if order.paused else next_slot(cadence_of(order), since_when)
            first = newest_slot(order) if order.kind == "past" else None if order.paused else order.first
            yield from _follows(order, first or (computed if settles else order.was))
        if settles or order.first:
            yield from _until(since, order.was, order.was_paused_at, order if settles else None)
            # An order that names a first slot sets settled_until back to before it.
            settled = order.at if order.first else max(settles_until(order), since.settled, made)
            since = order._replace(settled=settled)
    if present and is_over(since, present.now) and not pause_lasts(since, present.paused_at):
        end = pause_end(since)
        yield from _until(since, None, since.until, end)
        since = end
    if since.kind != "delete" and present:
        yield from _until(since, present.next_run_at, present.paused_at, None)


def _touches(order: Any, since: Any) -> bool:
    """Return whether an order ends a pause, or records its slots, by itself."""
    return order.kind == "delete" or not order.paused or cadence_of(order) != cadence_of(since)


def _follows(order: Any, expected: datetime | None) -> Iterator[Violation]:
    if order.became != expected:
        sentence = f"after {order.kind!r} the next slot must be {expected}, not {order.became}"
        yield Violation("next_run_at", sentence, (order,))


def _until(since: Any, was: datetime | None, paused_at: datetime | None, order: Any) -> Found:
    """Yield the stretch between two orders; next_run_at or the time of a pause tells how far the tickers had got."""
    cadence = cadence_of(since)
    if cadence.type == "manual":
        return
    if since.paused:
        handled = since.first or since.settled + MOMENT
        if paused_at is None:
            yield Violation("paused", f"it was resumed after {since.kind!r}, too early or by nobody", (since, order))
            return
    elif since.became is None or (was is None) == (paused_at is None):
        yield Violation("next_run_at", f"it is {was} after {since.kind!r}, and paused_at {paused_at}", (since, order))
        return
    else:
        handled = was or (paused_at or since.at) + MOMENT
        if handled < since.became or (was and not is_slot(cadence, was)):
            sentence = f"it went from {since.became} to {was}, which does not follow from {cadence}"
            yield Violation("next_run_at", sentence, (since, order))
            return
        # Slots that next_run_at was set past wait for the tick of the slot it was set to, or for an order that settles.
        waits = since.kind == "past" and handled == since.became
        if order or not waits:
            yield Stretch(cadence, since.first or since.became, handled, order if waits else None)
    if order and handled <= settles_until(order):
        yield Stretch(cadence, handled, settles_until(order) + MOMENT, order)
