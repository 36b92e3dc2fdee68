"""The shapes of backfills."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta
from pydantic import ConfigDict, Field

from routines_api.schemas.fields import RequestBody, Time
from routines_core.db.backfills import Backfill, BackfillSpec, Order, PlannedSlot, Reprocess

MOST_SHOWN = 1000
"""Maximum number of slots in the answer to a dry run."""
Count = Annotated[int, Meta(ge=0)]


class BackfillCreate(RequestBody):
    """A range of slots to fill."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"from": "2026-05-01T00:00:00Z", "to": "2026-05-08T00:00:00Z", "dry_run": True}]
        }
    )

    from_: Time = Field(alias="from", description="Only slots at this time or later.")
    to: Time | None = Field(
        default=None, description="Only slots before this time; null, and any later time, stands for now."
    )
    reprocess: Reprocess = Field(
        default="missing",
        description="missing: slots that never ran. failed: also those whose last attempt failed or was cancelled. "
        "all: also those that completed, and those of which retention has left no record.",
    )
    max_active: int = Field(default=1, ge=1, le=20, description="How many of its runs may be active at once.")
    order: Order = Field(default="oldest", description="Which slot is first.")
    dry_run: bool = Field(default=False, description="true: nothing is started; the answer says what would be.")

    @property
    def spec(self) -> BackfillSpec:
        """What it says, without whether it is a dry run."""
        return BackfillSpec(self.from_, self.to, self.reprocess, self.order, self.max_active)


class BackfillRead(msgspec.Struct, omit_defaults=True):
    """A backfill."""

    id: Annotated[int, Meta(description="The backfill.", examples=[3])]
    from_: Annotated[datetime, Meta(description="No slot is earlier.")] = msgspec.field(name="from")
    to: Annotated[datetime, Meta(description="Every slot is earlier.")]
    reprocess: Annotated[str, Meta(description="missing, failed or all.", examples=["missing"])]
    max_active: Annotated[int, Meta(description="How many of its runs may be active at once.", examples=[1])]
    order: Annotated[str, Meta(description="oldest or newest: which slot is first.", examples=["oldest"])]
    status: Annotated[
        str,
        Meta(
            description="active until its last run has ended; then completed, whatever its runs became, or cancelled.",
            examples=["active"],
        ),
    ]
    created_at: Annotated[datetime, Meta(description="When it was requested.")]
    created_by: Annotated[str, Meta(description="Who requested it.", examples=["key 7"])]
    started: Annotated[Count, Meta(description="How many runs it has started.", examples=[12])]
    left: Annotated[Count, Meta(description="How many slots it has left as they were.", examples=[156])]
    active: Annotated[Count, Meta(description="How many of its runs have not ended.", examples=[1])]
    completed: Annotated[Count, Meta(description="How many of its runs completed.", examples=[11])]
    failed: Annotated[Count, Meta(description="How many failed.", examples=[0])]
    cancelled: Annotated[Count, Meta(description="How many were cancelled.", examples=[0])]
    archived: Annotated[Count, Meta(description="How many were archived.", examples=[0])]
    reached: Annotated[datetime | None, Meta(description="The last slot that was decided; null at the start.")]
    ended_at: Annotated[datetime | None, Meta(description="From when on it starts no more runs; null until then.")]
    held_by: Annotated[
        str | None,
        Meta(
            description="Why no run is started at the moment, other than its own active runs; absent for nothing.",
            examples=["the routine is paused"],
        ),
    ] = None


class BackfillPlan(msgspec.Struct, omit_defaults=True):
    """What a backfill would do."""

    run: Annotated[Count, Meta(description="How many slots would get their first run.", examples=[12])]
    rerun: Annotated[Count, Meta(description="How many slots would get another attempt.", examples=[0])]
    left: Annotated[Count, Meta(description="How many slots would be left as they are.", examples=[156])]
    slots: Annotated[
        list[PlannedSlot], Meta(description=f"The first {MOST_SHOWN} slots, in the order of the backfill.")
    ]
    truncated: Annotated[bool, Meta(description="True if there are more slots; otherwise absent.")] = False


def backfill_read(backfill: Backfill) -> BackfillRead:
    """Return a backfill as the API shows it."""
    given = msgspec.structs.asdict(backfill)
    given["from_"], given["to"], given["left"] = given.pop("since"), given.pop("until"), given.pop("left_out")
    given["created_by"] = given.pop("made_by")
    return BackfillRead(**given)


def backfill_plan(slots: Sequence[PlannedSlot]) -> BackfillPlan:
    """Return a plan as the API shows it."""
    count = Counter(slot.becomes for slot in slots)
    shown = list(slots[:MOST_SHOWN])
    return BackfillPlan(count["run"], count["rerun"], count["left"], shown, truncated=len(slots) > MOST_SHOWN)
