"""The report of a collection: its shape in JSON, and as CSV."""

import csv
import io
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from routines_core.db.report import ReportRow

Count = Annotated[int, Meta(ge=0)]
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""


class SkippedSlots(msgspec.Struct):
    """How many slots were skipped, by reason."""

    overlap: Annotated[Count, Meta(description="A run was active.")]
    coalesced: Annotated[Count, Meta(description="Its run waited, and a later slot took it over.")]
    missed: Annotated[Count, Meta(description="No ticker picked it up in time.")]
    paused: Annotated[Count, Meta(description="During a pause, the slots of a current one included.")]
    failed_to_start: Annotated[Count, Meta(description="The run could not be started.")]
    calendar: Annotated[Count, Meta(description="A calendar excludes the day.")]
    outside_hours: Annotated[Count, Meta(description="Outside the active hours.")]
    backoff: Annotated[Count, Meta(description="The slots before it failed.")]


class ReportLine(msgspec.Struct, kw_only=True):
    """What became of slots. expected = started + skipped + pending, and started = on_time + late."""

    task: Annotated[
        str | msgspec.UnsetType, Meta(description="The task; absent for all of them.", examples=["greet"])
    ] = msgspec.UNSET
    routine: Annotated[str | msgspec.UnsetType, Meta(description="The routine; absent from sums.")] = msgspec.UNSET
    routine_id: Annotated[int | msgspec.UnsetType, Meta(description="Its id; absent from sums.")] = msgspec.UNSET
    deleted: Annotated[
        bool | msgspec.UnsetType, Meta(description="Whether the routine has been deleted; absent from sums.")
    ] = msgspec.UNSET
    expected: Annotated[Count, Meta(description="Slots that were due.", examples=[24])]
    started: Annotated[Count, Meta(description="Slots that started a run.", examples=[22])]
    on_time: Annotated[Count, Meta(description="Runs that began in time.")]
    late: Annotated[Count, Meta(description="Runs that began late, or are late and have not begun.")]
    completed: Annotated[Count, Meta(description="Runs that completed.")]
    failed: Annotated[Count, Meta(description="Runs that failed.")]
    cancelled: Annotated[Count, Meta(description="Runs that were cancelled.")]
    archived: Annotated[Count, Meta(description="Runs that were archived.")]
    active: Annotated[Count, Meta(description="Runs that have not ended.")]
    skipped: Annotated[SkippedSlots, Meta(description="Slots that never ran.")]
    pending: Annotated[Count, Meta(description="Slots that are due and have no outcome yet.")]
    recovered: Annotated[
        Count,
        Meta(
            description="Slots that failed, failed to start, were missed or skipped after failures, "
            "before one whose run completed, or filled since."
        ),
    ]
    max_delay_seconds: Annotated[
        float | None, Meta(description="The longest time from a due slot to the beginning of its run; null: no run.")
    ]


class Report(msgspec.Struct, omit_defaults=True):
    """What was expected of the routines of a collection, and what became of it."""

    from_: Annotated[datetime, Meta(description="Only slots at this time or later.")] = msgspec.field(name="from")
    to: Annotated[datetime, Meta(description="Only slots before this time.")]
    late_after_seconds: Annotated[int, Meta(description="Runs that began later than this after their slot are late.")]
    complete_since: Annotated[
        datetime | None,
        Meta(description="Retention has deleted slots up to this time, so some may be missing; null: none is."),
    ]
    routines: Annotated[list[ReportLine], Meta(description="A page of routines, by task and name.")]
    total: Annotated[
        ReportLine | msgspec.UnsetType, Meta(description="The sums of all routines; on the first page.")
    ] = msgspec.UNSET
    tasks: Annotated[
        list[ReportLine] | msgspec.UnsetType, Meta(description="The sums of each task; on the first page.")
    ] = msgspec.UNSET


def report_line(row: ReportRow) -> ReportLine:
    """Return a row in the shape of JSON."""
    given: dict[str, Any] = msgspec.structs.asdict(row)
    absent = [name for name in ("task", "routine", "routine_id") if given[name] is None]
    if row.routine_id is not None:
        given["deleted"] = row.is_deleted
    given["skipped"] = {name: given[name] for name in SkippedSlots.__struct_fields__}
    return msgspec.convert({name: given[name] for name in given if name not in absent}, ReportLine)


def as_csv(rows: Iterable[ReportRow]) -> str:
    """Return rows as CSV by RFC 4180, with the fields of `ReportRow` as columns."""
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(["deleted" if name == "is_deleted" else name for name in ReportRow.__struct_fields__])
    writer.writerows([cell(value) for value in msgspec.structs.astuple(row)] for row in rows)
    return written.getvalue()


def cell(value: object) -> str:
    """Return a value for CSV. A text that a spreadsheet would take for a formula gets an apostrophe in front."""
    if isinstance(value, bool):
        return str(value).lower()
    text = "" if value is None else str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(FORMULA) else text
