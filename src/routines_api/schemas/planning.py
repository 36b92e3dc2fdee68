"""The load of a schedule, and quiet minutes in it."""

from typing import Annotated

import msgspec
from msgspec import Meta

from routines_core.db.planning import Bucket, QuietMinute


class ScheduleLoad(msgspec.Struct):
    """The load of a schedule. Buckets without a slot are left out."""

    buckets: Annotated[list[Bucket], Meta(description="The earliest first.")]


class Suggestions(msgspec.Struct):
    """Cadences near a wished one."""

    suggestions: Annotated[list[QuietMinute], Meta(description="The quietest first, the wish among them.")]
