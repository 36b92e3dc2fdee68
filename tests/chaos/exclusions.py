"""Calendars and active hours under chaos: a quarter of the routines has both, always the same.

The calendar excludes the day before yesterday, and the windows every other hour, so that slots that a ticker meets late
are on both sides. Both go by UTC, whatever time zone a cadence is read in.
"""

from collections.abc import Collection
from datetime import date, datetime

from support.oracle import MOMENT, Cadence, latest_slot

REASONS = {"calendar", "outside_hours"}
CALENDAR = """INSERT INTO routines.calendars (collection_id, name, timezone, days)
              SELECT %s, 'off', 'UTC', jsonb_build_array(jsonb_build_object('from', day, 'label', 'day off'))
              FROM CAST(timezone('UTC', now()) - interval '2 days' AS date) AS day"""
WINDOWS = [f"mon-sun {hour:02}:00-{hour + 1:02}:00" for hour in range(1, 24, 2)]
EXCLUDE = """UPDATE routines.routines SET calendar = '{"exclude": ["off"]}',
                                          active_hours = jsonb_build_object('windows', %s::jsonb, 'timezone', 'UTC')
             WHERE id = %s AND id %% 4 = 0"""
"""Gives the calendar and the windows to every fourth routine."""


def excluded(routine: int, slot: datetime, days_off: Collection[date]) -> str | None:
    """Return the reason why this slot must not fire; None if it may."""
    if routine % 4:
        return None
    if slot.date() in days_off:
        return "calendar"
    return None if slot.hour % 2 else "outside_hours"


def newest_open_slot(routine: int, cadence: Cadence, until: datetime, days_off: Collection[date]) -> datetime | None:
    """Return the newest slot up to this time that may fire; None if none of the newest hundred may."""
    slot = latest_slot(cadence, until)
    for _ in range(100):
        if not slot or not excluded(routine, slot, days_off):
            return slot
        slot = latest_slot(cadence, slot - MOMENT)
    return None
