"""Check what must be true of every slot, run and step, knowing only the driver's orders and the database.

Each rule is a generator of violations over a `History`. No rule looks at how the product works inside.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Mapping
from datetime import date, datetime, timedelta
from typing import Any

from chaos.exclusions import REASONS, excluded, newest_open_slot
from chaos.history import History
from chaos.stretches import PauseEnd, Stretches, Violation, is_over, stretches_of
from chaos.strikes import strikes_pause
from chaos.traffic import RETRY
from support.oracle import MOMENT, Cadence, slots

CATCHUP = {"hourly": timedelta(hours=1)}
LONG_CATCHUP = timedelta(hours=12)
"""How old the newest missed slot may be and still fire, by the product's defaults: hourly, and all other cadences."""
COMMIT_SECONDS = timedelta(seconds=6)
"""How long before the commit a journal entry's time may lie: a backend may be frozen or stalled in between."""
STEPS = {"one", "two", "three"}
MAX_CRASHES = 3
_TAKEN_OVER = re.compile(r"run (\d+), which waited, is now for the slot of (\S+Z)")

Found = Generator[Violation]


def check(history: History, *, lease_seconds: float, settled: bool, engine: str = "postgres") -> list[Violation]:
    """Return every violation; `settled` also checks what must have happened in the end."""
    stretches, violations = stretches_of(history)
    rules: list[Callable[[], Iterable[Violation]]] = [
        lambda: one_outcome(history, stretches),
        lambda: never_early(history),
        lambda: offsets_stay(history),
        lambda: newest_slot_fires(history, stretches),
        lambda: excluded_slots_do_not_fire(history, stretches),
        lambda: skips_are_true(history, stretches),
        lambda: no_overlap(history),
        lambda: one_waits(history),
        lambda: retries_follow_failures(history),
        lambda: reruns_are_the_newest_attempt(history),
        lambda: backfills_fill_each_slot_once(history),
        lambda: backfills_are_bounded(history),
        lambda: (
            only_the_holder_writes(history, lease_seconds) if engine == "postgres" else only_temporal_takes(history)
        ),
        lambda: steps_are_fenced(history),
        lambda: finished_steps_are_not_repeated(history),
        lambda: last_run_at_is_true(history),
        lambda: strikes_pause(history),
        *([lambda: all_is_settled(history)] if settled else []),
    ]
    return [*violations, *(violation for rule in rules for violation in rule())]


def one_outcome(history: History, stretches: Stretches) -> Found:
    """Check that every slot implied by the orders has exactly one outcome, and no other slot has any."""
    outcomes: Counter[tuple[int, datetime]] = Counter()
    evidence: dict[tuple[int, datetime], list[Any]] = defaultdict(list)
    for run in history.runs:
        if run.scheduled_for:
            outcomes[run.routine_id, run.scheduled_for] += 1
            evidence[run.routine_id, run.scheduled_for].append(run)
    for skip in history.skips:
        for slot in _slots_of(skip, stretches):
            outcomes[skip.routine_id, slot] += 1
            evidence[skip.routine_id, slot].append(skip)
    ordered = {(routine, slot) for routine, own in stretches.items() for stretch in own for slot in stretch.slots()}
    for routine, slot in sorted(ordered - outcomes.keys()):
        rows = [order for order in history.orders if order.routine_id == routine]
        yield Violation("lost", f"slot {slot} of routine {routine} has no outcome", tuple(rows[-3:]))
    for (routine, slot), count in sorted(outcomes.items()):
        rows = tuple(evidence[routine, slot])
        if count > 1:
            yield Violation("double", f"slot {slot} of routine {routine} has {count} outcomes", rows)
        if (routine, slot) not in ordered:
            yield Violation("unordered", f"{slot} of routine {routine} has an outcome but was not a slot then", rows)


def _slots_of(skip: Any, stretches: Stretches) -> list[datetime]:
    """Return the slots that one skip accounts for: as many as it says, from its first to its last."""
    for stretch in stretches.get(skip.routine_id, []):
        if stretch.owns(skip.scheduled_for):
            found = slots(stretch.cadence, skip.scheduled_for, skip.last_scheduled_for + MOMENT)
            if len(found) == skip.slot_count and found[-1] == skip.last_scheduled_for:
                return found
    return [skip.scheduled_for]


def never_early(history: History) -> Found:
    """Check that no run is created before its slot is due, by the database's clock as the journal recorded it."""
    # A slot that takes a waiting run over counts as its creation.
    created = {row.trajectory_id: row.at for row in history.run_journal if _is_fire(row)}
    for run in history.runs:
        if run.scheduled_for and min(created[run.id], run.created_at) < run.scheduled_for + run.away:
            yield Violation("early", f"run {run.id} was created at {created[run.id]}, before its slot", (run,))


def _is_fire(row: Any) -> bool:
    return row.old_status is None or (row.old_place == row.place == 0 and row.old_status == row.status)


def offsets_stay(history: History) -> Found:
    """Check that a routine keeps its offset, and that runs and skips of its slots say when they were due."""
    for routine in history.routines:
        if (routine.spread_offset or timedelta()) != routine.away:
            yield Violation("spread", f"routine {routine.id} has another offset than at first", (routine,))
    for row in [*history.runs, *history.skips]:
        slot = getattr(row, "last_scheduled_for", row.scheduled_for)
        if slot and (row.due_at or slot) != slot + row.away:
            yield Violation("spread", f"{slot} of routine {row.routine_id} was due at {row.due_at}", (row,))


def _created_at(history: History) -> dict[int, datetime]:
    return {row.trajectory_id: row.at for row in history.run_journal if row.old_status is None}


def _window(cadence: Cadence) -> timedelta:
    return CATCHUP.get(cadence.type, LONG_CATCHUP)


def newest_slot_fires(history: History, stretches: Stretches) -> Found:
    """Check that after an outage only the newest slot fires, and only within its catch-up window."""
    for run in history.runs:
        for stretch in stretches.get(run.routine_id, []) if run.scheduled_for else []:
            if not stretch.owns(run.scheduled_for):
                continue
            decided = run.created_at - run.away
            newest = newest_open_slot(run.routine_id, stretch.cadence, decided, _days_off(history))
            if newest and newest > run.scheduled_for:
                yield Violation("catch-up", f"run {run.id} is for a slot before the newest, {newest}", (run,))
            if decided - run.scheduled_for > _window(stretch.cadence):
                yield Violation("catch-up", f"run {run.id} was created after its catch-up window", (run,))


def excluded_slots_do_not_fire(history: History, stretches: Stretches) -> Found:
    """Check that slots that a calendar or active hours exclude have that outcome, and no other slot has it.

    In a pause they are paused.
    """
    days_off = _days_off(history)
    for run in history.runs:
        reason = run.scheduled_for and excluded(run.routine_id, run.scheduled_for, days_off)
        if reason:
            yield Violation("excluded", f"run {run.id} is for a slot that is excluded: {reason}", (run,))
    for skip in history.skips:
        expected = {excluded(skip.routine_id, slot, days_off) for slot in _slots_of(skip, stretches)}
        found = skip.reason if skip.reason in REASONS else None
        if skip.reason != "paused" and expected != {found}:
            yield Violation("excluded", f"skip {skip.id} is {skip.reason!r}, its slots are {expected}", (skip,))


def _days_off(history: History) -> set[date]:
    return {row.day for row in history.days_off}


def skips_are_true(history: History, stretches: Stretches) -> Found:
    """Check that each skip has a cause: an active run, a late slot, a fire that cannot start, an order that settled."""
    runs = {run.id: run for run in history.runs}
    created = _created_at(history)
    heavy = {order.routine_id for order in history.orders if order.heavy}
    orders = {(order.routine_id, order.at): order for order in history.orders}
    past: dict[int, list[Any]] = defaultdict(list)
    for order in history.orders:
        if order.kind == "past":
            past[order.routine_id].append(order)
    for skip in history.skips:
        order = _pause_of(skip, stretches) or orders.get((skip.routine_id, skip.recorded_at))
        if order:
            yield from _settled_by_order(skip, order, stretches)
        elif skip.reason in {"overlap", "coalesced"}:
            named = skip.blocking_trajectory_id if skip.reason == "overlap" else _taken_over_by(skip)
            run = runs.get(named) if named else None
            is_true = _did_block(skip, run, created) if skip.reason == "overlap" else _took_over(skip, run, history)
            if not is_true:
                yield Violation(
                    "skip", f"skip {skip.id} is {skip.reason}, but not by the run that it names", (skip, run)
                )
        elif skip.reason == "missed" and skip.detail is None:
            yield from _missed_is_true(skip, stretches, _days_off(history))
        elif skip.reason == "missed" and _was_passed_over(skip, past[skip.routine_id]):
            continue
        elif skip.reason not in REASONS and (
            skip.reason != "failed_to_start" or skip.routine_id not in heavy or not skip.detail
        ):
            yield Violation("skip", f"skip {skip.id} is {skip.reason!r}, but no order explains that", (skip,))


def _did_block(skip: Any, run: Any, created: Mapping[int, datetime]) -> bool:
    """Return whether this run of the routine was active when the skip was recorded."""
    return (
        run is not None
        and run.routine_id == skip.routine_id
        and created[run.id] <= skip.really_recorded_at + COMMIT_SECONDS
        and not (run.ended_at and run.ended_at < skip.really_recorded_at - COMMIT_SECONDS)
    )


def _taken_over_by(skip: Any) -> int | None:
    told = _TAKEN_OVER.fullmatch(skip.detail or "")
    return int(told[1]) if told else None


def _took_over(skip: Any, run: Any, history: History) -> bool:
    """Return whether this run of the routine is for the slot that the skip tells, or was before a later one."""
    told = _TAKEN_OVER.fullmatch(skip.detail or "")
    if run is None or told is None or run.routine_id != skip.routine_id:
        return False
    slots_of_run = {other.scheduled_for for other in history.skips if _taken_over_by(other) == run.id}
    return datetime.fromisoformat(told[2]) in slots_of_run | {run.scheduled_for}


def _pause_of(skip: Any, stretches: Stretches) -> PauseEnd | None:
    """Return the end of the pause with an end that the slots of a skip fell into; None if they fell into none."""
    own = (stretch for stretch in stretches.get(skip.routine_id, []) if isinstance(stretch.order, PauseEnd))
    return next((each.order for each in own if each.owns(skip.scheduled_for)), None)


def _fell_in_pause(skip: Any, end: PauseEnd) -> Found:
    """Check that slots in a pause with an end are recorded once it is over, with its end and its note."""
    until = (end.rest.until + end.rest.away).strftime(", until %Y-%m-%dT%H:%M:%SZ") + (
        f": {end.rest.note}" if end.rest.note else ""
    )
    if skip.reason != "paused" or not (skip.detail or "").endswith(until) or skip.last_scheduled_for > end.at:
        yield Violation("skip", f"skip {skip.id} is {skip.reason!r} in a pause{until}: {skip.detail}", (skip, end))
    if skip.recorded_at < end.rest.until:
        yield Violation("early", f"skip {skip.id} was recorded before its pause was over", (skip, end))


def _settled_by_order(skip: Any, order: Any, stretches: Stretches) -> Found:
    """Check that skips of an order give the right reason: was the slot due before it, or did it fall into a pause?

    Slots that next_run_at had been set past by then are missed, whatever the order is.
    """
    if isinstance(order, PauseEnd):
        yield from _fell_in_pause(skip, order)
        return
    own = [stretch for stretch in stretches.get(skip.routine_id, []) if stretch.order and stretch.order.id == order.id]
    order = own[0].order if own else order  # as it was if an ended pause came before it
    is_due = order.was is None or skip.scheduled_for >= order.was
    # "rest" changes the cadence first: what had waited for its offset until then is missed.
    begins_pause = order.kind not in {"delete", "rest"} and order.paused and not is_over(order, order.at)
    is_paused = is_due and (order.was_paused_at is not None or begins_pause)
    if skip.reason not in ({"paused"} if is_paused else {"missed", *REASONS}) or not skip.detail:
        yield Violation("skip", f"skip {skip.id} is {skip.reason!r} by {order.kind!r}: {skip.detail}", (skip, order))
    if not any(stretch.owns(skip.scheduled_for) and stretch.owns(skip.last_scheduled_for) for stretch in own):
        yield Violation("skip", f"skip {skip.id} comes from {order.kind!r}, which settled no such slots", (skip, order))


def _was_passed_over(skip: Any, past: list[Any]) -> bool:
    """Return whether one of these orders set next_run_at past all slots of the skip."""
    return any(order.first <= skip.scheduled_for and skip.last_scheduled_for < order.became for order in past)


def _missed_is_true(skip: Any, stretches: Stretches, days_off: set[date]) -> Found:
    for stretch in stretches.get(skip.routine_id, []):
        if stretch.owns(skip.scheduled_for):
            newest = newest_open_slot(skip.routine_id, stretch.cadence, skip.recorded_at, days_off)
            in_time = skip.recorded_at - skip.last_scheduled_for <= _window(stretch.cadence)
            if newest and skip.last_scheduled_for >= newest and in_time:
                yield Violation("skip", f"skip {skip.id} is for a slot that could still fire", (skip,))


def no_overlap(history: History) -> Found:
    """Check that a scheduled run begins only while as few other runs of its routine are active as its policy says.

    The rule uses the journal's times. A blocking run's end is recorded before it commits, and a run's creation after
    every check that permitted it, so two runs that merely touch are never taken for an overlap. A run that waits for a
    place begins when it gets one; a retry is active from its creation.
    """
    retries = {run.id for run in history.runs if run.trigger == "retry"}
    begun = {row.trajectory_id: row for row in history.run_journal if _begins(row, retries)}
    ended = {row.trajectory_id: row for row in history.run_journal if row.status not in {"pending", "running"}}

    def overlaps(earlier: Any, run: Any) -> bool:
        """Return whether a run goes on when another begins; not if it is stopped in the same transaction."""
        end, beginning = ended.get(earlier.id), begun[run.id]
        return end is None or (end.at > beginning.at and end.transaction_at != beginning.transaction_at)

    most = {order.routine_id: order.most for order in history.orders}
    by_routine: dict[int, list[Any]] = defaultdict(list)
    for run in history.runs:
        if run.id in begun:
            by_routine[run.routine_id].append(run)
    for routine, runs in by_routine.items():
        runs.sort(key=lambda run: begun[run.id].at)
        active: list[Any] = []
        for run in runs:
            active = [other for other in active if overlaps(other, run)]
            if run.trigger == "schedule" and len(active) >= most.get(routine, 1):
                yield Violation("overlap", f"run {run.id} began while run {active[0].id} was active", (*active, run))
            active.append(run)


def _begins(row: Any, retries: set[int]) -> bool:
    """Return whether a run counts as active from this entry of its journal on."""
    if row.old_status is None and row.trajectory_id in retries:
        return True
    return row.place != 0 and (row.old_status is None or row.old_place == 0) and row.status == "pending"


def retries_follow_failures(history: History) -> Found:
    """Check that a retry is that of one run that failed before, comes after its backoff, and is not one too many."""
    retried = {run.retried_by: run for run in history.runs if run.retried_by}
    claimed: dict[int, datetime] = {}
    for row in history.run_journal:
        if row.old_status == "pending" and row.status == "running":
            claimed.setdefault(row.trajectory_id, row.at)
    for run in history.runs:
        if run.trigger != "retry":
            continue
        failed = retried.get(run.id)
        if failed is None or failed.status != "failed" or run.retry_of not in {failed.id, failed.retry_of}:
            yield Violation("retry", f"run {run.id} retries a run that did not fail", (failed, run))
        elif run.retry_number != (failed.retry_number or 0) + 1 or run.retry_number >= RETRY["max_attempts"]:
            yield Violation("retry", f"run {run.id} is retry {run.retry_number}", (failed, run))
        elif run.id in claimed and claimed[run.id] < failed.ended_at + timedelta(seconds=1):
            yield Violation("early", f"retry {run.id} began before its time", (failed, run))


def reruns_are_the_newest_attempt(history: History) -> Found:
    """Check that reruns repeat ended runs one after the other, and keep steps that the named runs completed."""
    runs = {run.id: run for run in history.runs}
    created = _created_at(history)
    completed = {(row.trajectory_id, row.step) for row in history.step_journal if row.status == "completed"}
    newest: dict[int, Any] = {}
    for run in (run for run in history.runs if run.rerun_of):
        before = newest.get(run.retry_of)
        ended = [runs[run.rerun_of], *([before] if before else [])]
        if any(each.ended_at is None or each.ended_at > created[run.id] + COMMIT_SECONDS for each in ended):
            yield Violation("rerun", f"run {run.id} repeats a run that was active", (*ended, run))
        if any((kept, step) not in completed for step, kept in (run.kept_steps or {}).items()):
            yield Violation("rerun", f"run {run.id} keeps a step that was not completed", (run,))
        newest[run.retry_of] = run
    for first, run in newest.items():
        last, seen = runs[first], {first}
        while last.retried_by in runs and last.retried_by not in seen:
            last = runs[last.retried_by]
            seen.add(last.id)
        if last.id != run.id:
            yield Violation("rerun", f"the last attempt of run {first} is not its newest rerun", (last, run))


def backfills_fill_each_slot_once(history: History) -> Found:
    """Check that no slot is filled twice, that each lies in the range of its backfill, and that its skip says so."""
    backfills = {each.id: each for each in history.backfills}
    skips = {(skip.routine_id, skip.scheduled_for): skip for skip in history.skips if skip.slot_count == 1}
    filled: dict[tuple[int, datetime], Any] = {}
    for run in (run for run in history.runs if run.backfill_id):
        own, slot = backfills[run.backfill_id], (run.routine_id, run.fills_slot)
        if not own.from_time <= run.fills_slot < own.until_time or own.routine_id != run.routine_id:
            yield Violation("backfill", f"run {run.id} is for a slot outside of its backfill", (own, run))
        if run.rerun_of is None:
            if slot in filled:
                yield Violation("double", f"slot {slot[1]} of routine {slot[0]} was filled twice", (filled[slot], run))
            if slot in skips and skips[slot].filled_by != run.id:
                yield Violation("backfill", f"the skip that run {run.id} fills does not say so", (skips[slot], run))
            filled[slot] = run


def backfills_are_bounded(history: History) -> Found:
    """Check that no more runs of a backfill are active at once than it allows."""
    backfills = {each.id: each for each in history.backfills}
    runs = {run.id: run for run in history.runs if run.backfill_id}
    active: dict[int, set[int]] = defaultdict(set)
    for row in history.run_journal:
        run = runs.get(row.trajectory_id)
        if run and row.old_status is None:
            active[run.backfill_id].add(run.id)
            if len(active[run.backfill_id]) > backfills[run.backfill_id].max_active:
                yield Violation("backfill", f"backfill {run.backfill_id} has too many active runs", (run,))
        elif run and row.status not in {"pending", "running"}:
            active[run.backfill_id].discard(run.id)


def one_waits(history: History) -> Found:
    """Check that at most one run of a routine waits for a place, and that runs end early for such a run alone."""
    policies = {order.routine_id: order.policy for order in history.orders}
    stopped = {run.id for run in history.runs if (run.error or "").startswith("cancelled: by its overlap policy")}
    waiting: dict[int, Any] = {}
    left_at: dict[int, datetime] = {}
    for row in history.run_journal:
        if row.old_status is None and row.place == 0:
            if row.routine_id in waiting or policies[row.routine_id] not in {"queue_one", "cancel_other"}:
                yield Violation("overlap", f"run {row.trajectory_id} may not wait", (waiting.get(row.routine_id), row))
            waiting[row.routine_id] = row
        elif row.old_place == 0 and (row.place != 0 or row.status != "running"):
            waiting.pop(row.routine_id, None)
            left_at[row.routine_id] = row.transaction_at
        elif row.status == "cancelled" and row.trajectory_id in stopped:
            # Several are stopped in one transaction, which also lets the run begin that waited for them.
            was_waited_for = row.routine_id in waiting or left_at.get(row.routine_id) == row.transaction_at
            if not was_waited_for or policies[row.routine_id] != "cancel_other":
                yield Violation("overlap", f"run {row.trajectory_id} was stopped, and no run waits", (row,))


def only_the_holder_writes(history: History, lease_seconds: float) -> Found:
    """Check that taking a run raises the fence, that otherwise only its worker writes it, and that its end is final."""
    holder: dict[int, str] = {}
    for row in history.run_journal:
        change = (row.old_status, row.status)
        raised = row.fence - (row.old_fence or 0)
        if row.old_status is None or row.old_place == 0:  # nobody holds a run that waits for a place: see one_waits
            continue
        if row.old_status not in {"pending", "running"}:
            yield Violation("final", f"run {row.trajectory_id} was {row.old_status} and became {row.status}", (row,))
        elif change == ("pending", "running"):
            if raised != 1:
                yield Violation("fence", f"run {row.trajectory_id} was claimed without raising the fence by 1", (row,))
            holder[row.trajectory_id] = row.writer
        elif row.status == "pending" or raised:
            yield from _taken_away(row, raised, holder)
        elif change[0] == "running" and row.writer != holder.get(row.trajectory_id):
            yield Violation(
                "fence", f"run {row.trajectory_id} was written by {row.writer}, which has not claimed it", (row,)
            )
        if row.status == "running" and row.lease - row.transaction_at != timedelta(seconds=lease_seconds):
            yield Violation(
                "lease", f"the lease of run {row.trajectory_id} does not follow the database's clock", (row,)
            )


def _taken_away(row: Any, raised: int, holder: dict[int, str]) -> Found:
    """Check that a run taken from its worker was given back, lost, or past its deadline."""
    lost = row.crashes - row.old_crashes
    late = row.deadline is not None and row.deadline <= row.transaction_at
    if raised != 1:
        yield Violation("fence", f"run {row.trajectory_id} was taken away without raising the fence by 1", (row,))
    # Cancelled by its overlap policy, or with its routine; or a retry whose time has come, which nobody holds.
    is_free = row.status == "cancelled" or row.trajectory_id not in holder
    if lost == 0 and not late and not is_free and row.writer != holder[row.trajectory_id]:
        yield Violation(
            "crashes", f"run {row.trajectory_id} was taken from its worker without counting a crash", (row,)
        )
    if lost and (row.old_lease is None or row.old_lease > row.transaction_at):
        yield Violation("lease", f"run {row.trajectory_id} was taken away before its lease expired", (row,))
    if lost not in {0, 1} or (lost and (row.status == "failed") != (row.crashes >= MAX_CRASHES) and not late):
        yield Violation("crashes", f"run {row.trajectory_id} is {row.status} after {row.crashes} crashes", (row,))


def only_temporal_takes(history: History) -> Found:
    """Check the same of runs on Temporal, which have no lease: each claim by an activity takes the run, and counts."""
    holder: dict[int, str] = {}
    for row in history.run_journal:
        if row.old_status is None or row.old_place == 0:
            continue
        raised, lost = row.fence - row.old_fence, row.crashes - row.old_crashes
        if row.old_status not in {"pending", "running"}:
            yield Violation("final", f"run {row.trajectory_id} was {row.old_status} and became {row.status}", (row,))
        elif raised and row.status == "running":
            holder[row.trajectory_id] = row.writer
        elif not raised and row.writer != holder.get(row.trajectory_id):
            yield Violation(
                "fence", f"run {row.trajectory_id} was written by {row.writer}, which has not claimed it", (row,)
            )
        if raised not in {0, 1}:
            yield Violation("fence", f"run {row.trajectory_id} was taken without raising the fence by 1", (row,))
        if lost not in {0, raised}:
            yield Violation("crashes", f"run {row.trajectory_id} counts a crash although nobody took it", (row,))
        if lost and (row.status == "failed") != (row.crashes >= MAX_CRASHES):
            yield Violation("crashes", f"run {row.trajectory_id} is {row.status} after {row.crashes} crashes", (row,))
        if row.status == "running" and row.lease is not None and row.old_status == "running":
            yield Violation("lease", f"run {row.trajectory_id} has a lease although Temporal has it", (row,))


def steps_are_fenced(history: History) -> Found:
    """Check that a step is written under the run's current fence, and never again once it is completed.

    The exception: the end of a run closes a step that an earlier claim began, if later claims did not get that far.
    """
    ends = {(row.trajectory_id, row.transaction_at): row.status for row in history.run_journal}
    for row in history.step_journal:
        closed_as = ends.get((row.trajectory_id, row.transaction_at))
        is_closed = row.old_status == "running" and row.status == closed_as in {"failed", "cancelled"}
        if row.fence != row.current_fence and not is_closed:
            yield Violation("fence", f"step {row.step} of run {row.trajectory_id} was written too late", (row,))
        if row.old_status == "completed":
            yield Violation("repeated", f"step {row.step} of run {row.trajectory_id} was already finished", (row,))
    completed: dict[int, set[str]] = defaultdict(set)
    for row in history.step_journal:
        if row.status == "completed":
            completed[row.trajectory_id].add(row.step)
    for run in history.runs:
        if run.status == "completed" and completed[run.id] | (run.kept_steps or {}).keys() != STEPS:
            yield Violation("final", f"run {run.id} is completed without {STEPS - completed[run.id]}", (run,))


def finished_steps_are_not_repeated(history: History) -> Found:
    """Check that no claim executes a step that is finished, and that one that lost its run begins at most one more."""
    finished = {(row.trajectory_id, row.step): row for row in history.step_journal if row.status == "completed"}
    taken_at = {
        (row.trajectory_id, row.old_fence): row.at
        for row in history.run_journal
        if row.old_status == "running" and row.fence != row.old_fence
    }
    late: Counter[tuple[int, int]] = Counter()
    for execution in history.executions:
        row = finished.get((execution.trajectory_id, execution.step))
        if row and execution.at > row.at and execution.fence >= row.fence:
            yield Violation(
                "repeated",
                f"step {execution.step} of run {execution.trajectory_id} was already finished",
                (row, execution),
            )
        own = execution.trajectory_id, execution.fence
        if own in taken_at and execution.at > taken_at[own] + COMMIT_SECONDS:
            late[own] += 1
    for (run, fence), count in late.items():
        if count > 1:
            yield Violation("fence", f"the claim of run {run} with fence {fence} began {count} steps after losing it")


def last_run_at_is_true(history: History) -> Found:
    """Check that last_run_at is the time at which the routine's newest run was created."""
    newest: dict[int, Any] = {}
    runs = {run.id: run for run in history.runs}
    for row in history.run_journal:
        run = runs.get(row.trajectory_id)
        if _is_fire(row) and run and run.trigger not in {"retry", "rerun", "backfill"}:
            newest[row.routine_id] = run
    for routine in history.routines:
        run = newest.get(routine.id)
        if routine.last_run_at != (run.created_at if run else None):
            yield Violation(
                "last_run_at",
                f"last_run_at of routine {routine.id} is not the creation of its newest run",
                (routine, run),
            )


def all_is_settled(history: History) -> Found:
    """Check that in the end every run is final, and no pause that is over lasts."""
    for run in history.runs:
        if run.ended_at is None:
            yield Violation("unsettled", f"run {run.id} is still {run.status}", (run,))
    for routine in history.routines:
        if routine.paused_until and routine.paused_until < routine.now - COMMIT_SECONDS:
            yield Violation("unsettled", f"routine {routine.id} is still paused after its pause was over", (routine,))
