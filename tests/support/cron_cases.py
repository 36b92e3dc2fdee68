"""Random cron cases: expressions in every time zone, mostly near a change of its clocks."""

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import NamedTuple

from support.cron_oracle import DAYS, MACROS, MONTHS, Cron, zone

LEAP_DAYS = [datetime(year, 2, 28, 23, 59, tzinfo=UTC) for year in (1972, 2000, 2024, 2096)] + [
    datetime(2096, 3, 1, tzinfo=UTC),
    datetime(2100, 2, 28, 12, tzinfo=UTC),
]
SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)


class Case(NamedTuple):
    expressions: list[str]
    zone: str
    start: datetime


@cache
def changes(name: str, year: int) -> list[datetime]:
    """Return when the clocks of a zone change in a year, found by halving half days."""
    here, found = zone(name), []
    time = datetime(year, 1, 1, tzinfo=UTC)
    while time.year == year:
        low, high = time, time + DAY / 2
        after = high.astimezone(here).utcoffset()
        if low.astimezone(here).utcoffset() != after:
            while high - low > SECOND:
                middle = (low + (high - low) / 2).replace(microsecond=0)
                low, high = (low, middle) if middle.astimezone(here).utcoffset() == after else (middle, high)
            found.append(high)
        time += DAY / 2
    return found


def cases(seed: int, zones: Sequence[str], count: int) -> Iterator[Case]:
    """Yield cases from 1970 to 2100; one in twenty is near the day that Samoa left out."""
    chance = random.Random(seed)
    for _ in range(count):
        name, year = chance.choice(zones), chance.randint(1970, 2100)
        if chance.random() < 0.05:
            name, year = "Pacific/Apia", 2011
        start = datetime(year, 1, 1, tzinfo=UTC) + timedelta(minutes=chance.randint(0, 525_599))
        if chance.random() < 0.6:
            start = chance.choice(changes(name, year) or [start])
        elif chance.random() < 0.1:
            start = chance.choice(LEAP_DAYS)
        start += timedelta(minutes=chance.randint(-3000, 3000))
        if chance.random() < 0.5:
            start += timedelta(seconds=chance.randint(0, 59), microseconds=chance.randint(0, 999_999))
        start = max(start, datetime(1970, 1, 3, tzinfo=UTC))
        local = start.astimezone(zone(name))
        yield Case([expression(chance, local) for _ in range(chance.choice([1, 1, 1, 1, 2, 3]))], name, start)


def expression(chance: random.Random, local: datetime) -> str:
    """Draw an expression; half of its numbers are those of the local time or its neighbours."""
    if chance.random() < 0.03:
        return chance.choice(list(MACROS))
    near = local + timedelta(minutes=chance.choice([-30, -1, 0, 0, 30]))
    weekdays = ["*", "*", "*", _field(chance, 0, 7, near.isoweekday(), DAYS), "mon-fri", "1-5", "*/7"]
    weekdays += [f"{chance.randint(0, 7)}L", f"{chance.choice(DAYS)}#{chance.randint(1, 5)}"]
    days = [
        "*",
        "*",
        "*",
        _field(chance, 1, 31, near.day),
        "L",
        "LW",
        f"{chance.randint(1, 31)}W",
        "*/2",
        "1,15,L",
        "29",
    ]
    return " ".join(
        [
            _field(chance, 0, 59, chance.choice([0, 30, near.minute])),
            _field(chance, 0, 23, near.hour),
            chance.choice(days),
            chance.choice(["*", "*", "*", _field(chance, 1, 12, near.month, MONTHS), "2"]),
            chance.choice(weekdays),
        ]
    )


def _field(chance: random.Random, low: int, high: int, near: int, names: Sequence[str] = ()) -> str:
    def number() -> int:
        return chance.choice([near, chance.randint(low, high)])

    def span() -> tuple[int, int]:
        first, last = sorted((number(), number()))
        return (first, last) if first < last else (low, high)

    first, last = span()
    return chance.choice(
        [
            "*",
            "*",
            f"*/{chance.randint(1, (high - low) // 2 + 1)}",
            f"{first}-{last}",
            f"{first}-{last}/{chance.randint(1, 5)}",
            ",".join(str(number()) for _ in range(chance.randint(2, 4))),
            chance.choice(names) if names else str(number()),
            str(number()),
            str(number()),
        ]
    )


def cronsim_is_wrong(case: Case, last_slot: datetime) -> bool:
    """Return whether cronsim's result may differ, because it steps on the local clock.

    It may return a time that is past if it begins in the second half of an overlap. Expressions that go by real time it
    steps through by hours, and loses or repeats slots where clocks change at midnight, not by an hour or off the hour.
    """
    if case.start.astimezone(zone(case.zone)).fold == 1:
        return True
    if not Cron(case.expressions[0]).is_real_time:
        return False
    return any(
        case.start - 2 * DAY <= change <= last_slot + 2 * DAY and _is_odd(change, case.zone)
        for year in range(case.start.year - 1, last_slot.year + 2)
        for change in changes(case.zone, year)
    )


def _is_odd(change: datetime, name: str) -> bool:
    before, after = (change - SECOND).astimezone(zone(name)) + SECOND, change.astimezone(zone(name))
    moved = after.replace(tzinfo=None) - before.replace(tzinfo=None)
    return abs(moved) != HOUR or before.minute != 0 or 0 in {before.hour, after.hour} or before.date() != after.date()
