"""A second implementation of cadences: it walks the calendar by the contract's rules, without arithmetic on a grid."""

import hashlib
from datetime import datetime, timedelta
from typing import NamedTuple

from support import cron_oracle

DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
MOMENT = timedelta(microseconds=1)


class Cadence(NamedTuple):
    """A cadence, with the fields of the type routines.cadence; `_asdict()` is the form that cadence_from_json takes."""

    type: str
    hour_utc: int | None = None
    minute_utc: int = 0
    day_of_week: str | None = None
    expression: str | None = None
    timezone: str | None = None
    every_minutes: int | None = None
    anchor: str | None = None


def is_slot(cadence: Cadence, time: datetime) -> bool:
    """Return whether this minute is a slot."""
    kind = cadence.type
    if kind in {"cron", "interval"}:
        return walk(cadence, time, -1) == time
    if kind == "manual" or time.minute != cadence.minute_utc or time.second or time.microsecond:
        return False
    if kind == "hourly":
        return True
    if time.hour != cadence.hour_utc:
        return False
    weekday = DAYS[time.weekday()]
    return kind == "daily" or (kind == "weekdays" and weekday not in {"sat", "sun"}) or weekday == cadence.day_of_week


def walk(cadence: Cadence, start: datetime, direction: int) -> datetime | None:
    """Walk from `start`, inclusive, hour by hour on the cadence's minute, to the first slot; None for manual."""
    if cadence.type == "manual":
        return None
    if cadence.expression and cadence.timezone:
        if direction > 0:
            return cron_oracle.next_slot([cadence.expression], cadence.timezone, start - MOMENT)
        return cron_oracle.latest_slot([cadence.expression], cadence.timezone, start)
    if cadence.every_minutes and cadence.anchor:
        step, anchor = timedelta(minutes=cadence.every_minutes), datetime.fromisoformat(cadence.anchor)
        floor = anchor + (start - anchor) // step * step
        return floor if direction < 0 or floor == start else floor + step
    candidate = start.replace(minute=cadence.minute_utc, second=0, microsecond=0)
    while (candidate - start) * direction < timedelta(0):
        candidate += timedelta(hours=direction)
    while not is_slot(cadence, candidate):
        candidate += timedelta(hours=direction)
    return candidate


def offset_of(routine_id: int, spread_seconds: int) -> timedelta:
    """Return how long after its slots a routine fires: the first 32 bits of a hash, as a share of 0 to the spread."""
    share = int.from_bytes(hashlib.md5(b"routines.spread.%d" % routine_id).digest()[:4])
    return timedelta(seconds=share * (spread_seconds + 1) // 2**32)


def next_slot(cadence: Cadence, after: datetime) -> datetime | None:
    """Return the first slot strictly later than `after`; None for manual."""
    return walk(cadence, after + MOMENT, +1)


def latest_slot(cadence: Cadence, until: datetime) -> datetime | None:
    """Return the last slot at or before `until`; None for manual."""
    return walk(cadence, until, -1)


def slots(cadence: Cadence, first: datetime, end: datetime) -> list[datetime]:
    """Return the slots from `first`, inclusive, to `end`, exclusive."""
    found: list[datetime] = []
    slot = walk(cadence, first, +1)
    while slot is not None and slot < end:
        found.append(slot)
        slot = next_slot(cadence, slot)
    return found
