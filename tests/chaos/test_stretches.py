"""The checker's own view of next_run_at, where it is easily wrong."""

from collections import namedtuple
from datetime import UTC, datetime, timedelta
from typing import Any

from chaos.history import History
from chaos.stretches import stretches_of

HOUR = datetime(2026, 11, 30, 1, tzinfo=UTC)
AWAY = timedelta(seconds=18)
FIELDS = (
    "id routine_id kind away at cadence paused was was_paused_at heavy first became until note changes_cadence settled"
)
Order = namedtuple("Order", FIELDS.split())  # noqa: PYI024 - rows of the history are untyped as well


def order(kind: str, second: float, **fields: Any) -> Any:
    """Return an order at a second of 01:02 on the routine's own clock, which is 18 s behind."""
    at = HOUR + timedelta(minutes=2, seconds=second)
    cadence = {"type": "hourly", "minute_utc": 3}
    unset = dict.fromkeys(Order._fields)
    return Order(
        **unset | {"routine_id": 1, "id": 1, "kind": kind, "away": AWAY, "at": at, "cadence": cadence} | fields
    )


def test_a_slot_from_before_the_creation_does_not_come_though_its_spread_makes_it_due_after() -> None:
    """Created at 01:03:05 by the database's clock: 01:03 is due 13 s later, but no slot of the routine."""
    next_hour = HOUR + timedelta(hours=1, minutes=3)
    first = HOUR - timedelta(days=1, minutes=57)
    orders = [
        order("create", 47, became=next_hour),
        order("rest", 55, paused=True, was=next_hour, first=first, until=HOUR + timedelta(minutes=3)),
        order("resume", 57, was_paused_at=first - timedelta(microseconds=1), became=next_hour),
    ]
    history = History(HOUR, orders, *[[]] * 10)

    assert stretches_of(history)[1] == []

    wrong = orders[-1]._replace(became=HOUR + timedelta(minutes=3))
    assert stretches_of(History(HOUR, [*orders[:-1], wrong], *[[]] * 10))[1] != []
