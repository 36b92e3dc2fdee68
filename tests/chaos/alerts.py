"""Watch the collection with an alert rule, and check that alerts and notices tell what happened and nothing else."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Generator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec
from psycopg import AsyncConnection

from chaos.history import History
from chaos.stretches import Violation
from support.receivers import Received, answers, closes_early, receiver

AFTER = timedelta(seconds=5)
"""How long a slot has been due when the rule calls it late."""
GRACE = timedelta(seconds=2)
"""How far the moments may lie apart at which a statement began and its rows were written."""
JUDGED = timedelta(minutes=3)
"""How long it may take until a worker judges what happened, while workers are lost and the machine is busy."""
RULE = """INSERT INTO routines.alert_rules (collection_id, name, events, after_seconds, streak, webhook_url)
          VALUES (%s, 'on-call', '{late,missed,failed,streak,paused,recovered}', %s, 3, %s)"""
FAULTY_SHARE = 0.2
"""The share of notices that the receiver refuses, or accepts without saying so."""
LATE_REASONS = {"overlap", "failed_to_start", "backoff", "missed"}
"""Skips that a rule calls late. Others were settled in time: in a pause, by a calendar, by a later slot."""

Found = Generator[Violation]
Slot = tuple[int, datetime]


@dataclass
class Watchman:
    """Receives notices, some of them badly while it is faulty."""

    rng: random.Random
    url: str = ""
    received: list[Received] = field(default_factory=list[Received])
    is_faulty: bool = True

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer a request, or not."""
        kind = self.rng.random() if self.is_faulty else 1
        await (answers(500) if kind < FAULTY_SHARE / 2 else closes_early if kind < FAULTY_SHARE else answers(204))(
            reader, writer
        )


@asynccontextmanager
async def watching(rng: random.Random) -> AsyncGenerator[Watchman]:
    """Receive notices until the end of the block."""
    watchman = Watchman(rng)
    async with receiver(watchman) as hook:
        watchman.url, watchman.received = hook.url, hook.received
        yield watchman


async def make_rule(connection: AsyncConnection[Any], collection_id: int, url: str) -> None:
    """Create the rule that watches all routines of the collection."""
    await connection.execute(RULE, [collection_id, AFTER.total_seconds(), url])


def alerts_are_true(history: History) -> Found:
    """Check that each slot that failed, was missed or was late has its alert, and that no other alert was opened.

    Slots of routines that have been deleted since may lack theirs.
    """
    existing = {routine.id for routine in history.routines}
    alerts: dict[str, dict[Slot, Any]] = defaultdict(dict)
    for alert in history.alerts:
        alerts[alert.event][alert.routine_id, alert.scheduled_for] = alert
    for event, expected, possible in (
        ("failed", _failed(history), _failed_again(history)),
        ("missed", _missed(history), set[Slot]()),
    ):
        for slot in sorted(expected.keys() - alerts[event].keys()):
            if slot[0] in existing:
                yield Violation("alert", f"slot {slot[1]} of routine {slot[0]} has no alert: {event}", expected[slot])
        for slot in sorted(alerts[event].keys() - expected.keys() - possible):
            yield Violation("alert", f"the alert says {event}, but the slot was not", (alerts[event][slot],))
    yield from _late_is_true(history, list(alerts["late"].values()), existing)


def _failed(history: History) -> Mapping[Slot, tuple[Any, ...]]:
    """Return the slots that failed with their last retry, whatever people have made of them since."""
    runs = {run.id: run for run in history.runs}
    found: dict[Slot, tuple[Any, ...]] = {}
    for run in history.runs:
        last = run
        while last.retried_by and runs[last.retried_by].trigger == "retry":
            last = runs[last.retried_by]
        if run.scheduled_for and last.status == "failed":
            found[run.routine_id, run.scheduled_for] = (run, last)
    for skip in history.skips:
        if skip.reason == "failed_to_start":
            found[skip.routine_id, skip.scheduled_for] = (skip,)
    return found


def _failed_again(history: History) -> set[Slot]:
    """Return the slots of failed reruns."""
    first = {run.id: run for run in history.runs}
    return {
        (run.routine_id, first[run.retry_of].scheduled_for)
        for run in history.runs
        if run.trigger == "rerun" and run.status == "failed" and run.retry_of
    }


def _missed(history: History) -> Mapping[Slot, tuple[Any, ...]]:
    return {(skip.routine_id, skip.scheduled_for): (skip,) for skip in history.skips if skip.reason == "missed"}


def _late_is_true(history: History, alerts: list[Any], existing: set[int]) -> Found:
    own: dict[int, list[Any]] = defaultdict(list)
    for alert in alerts:
        own[alert.routine_id].append(alert)
    outcomes: dict[Slot, datetime] = {}
    """When each slot got its outcome; of slots skipped together, the first. Later slots have none."""
    for run in history.runs:
        if not run.scheduled_for:
            continue
        outcomes[run.routine_id, run.scheduled_for] = run.created_at
        due = run.due_at or run.scheduled_for
        if run.created_at - due > AFTER + GRACE and run.routine_id in existing:
            yield from _covered(own[run.routine_id], run.scheduled_for, run.created_at, run)
    for skip in history.skips:
        outcomes[skip.routine_id, skip.scheduled_for] = skip.really_recorded_at
        due = skip.last_scheduled_for + skip.away
        is_late = skip.reason in LATE_REASONS and skip.really_recorded_at - due > AFTER + GRACE
        if is_late and skip.routine_id in existing:
            yield from _covered(own[skip.routine_id], skip.scheduled_for, skip.really_recorded_at, skip)
    for alert in alerts:
        decided = outcomes.get((alert.routine_id, alert.scheduled_for))
        if decided and min(alert.opened_at, decided) + GRACE < alert.scheduled_for + AFTER:
            yield Violation("alert", f"the alert says late, but the slot had its outcome at {decided}", (alert,))


def _covered(alerts: Iterable[Any], slot: datetime, decided: datetime, row: Any) -> Found:
    """Check that a late slot is told of by an alert of its routine: its own, or one that is open when it is judged."""
    for alert in alerts:
        # closed_at is when it was over, even if that was found out later.
        is_open = alert.opened_at <= decided + JUDGED and not (alert.closed_at and alert.closed_at < decided - GRACE)
        if alert.scheduled_for == slot or is_open:
            return
    yield Violation("alert", f"slot {slot} was decided at {decided}, late, and has no alert", (row, *alerts))


def notices_are_true(history: History, received: list[Received]) -> Found:
    """Check that each alert is told once, and each recovery, whatever happened to workers and receiver."""
    bodies: dict[str, set[bytes]] = defaultdict(set)
    for request in received:
        bodies[request.headers["webhook-id"]].add(request.body)
    queued = {str(row.event_id): row for row in history.notices}
    for name in bodies.keys() - queued.keys():
        yield Violation("notice", f"notice {name} was received and is not in the outbox", (*bodies[name],))
    for name, row in queued.items():
        if len(bodies[name]) != 1 or not row.delivered_at:
            yield Violation("notice", f"notice {name} was received as {len(bodies[name])} bodies", (row,))
    told = Counter(
        ("recovery" if body["event"] == "recovered" else "opening", alert["alert_id"])
        for name in bodies.keys() & queued.keys()
        for body in map(msgspec.json.decode, bodies[name])
        for alert in body.get("alerts", [body])
    )
    for (what, alert), count in sorted(told.items()):
        if count > 1:
            yield Violation("notice", f"the {what} of alert {alert} was told {count} times")
    yield from _all_is_told(history.alerts)


def _all_is_told(alerts: list[Any]) -> Found:
    open_notices = {alert.notice_id for alert in alerts if not alert.closed_at}
    for alert in alerts:
        if alert.suppressed_reason is not None:
            continue
        if alert.notice_id is None:
            yield Violation("notice", "the alert was never told", (alert,))
        elif alert.notice_id not in open_notices and alert.recovery_notice_id is None:
            yield Violation("notice", "the end of the alert was never told", (alert,))
