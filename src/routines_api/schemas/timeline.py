"""The timeline of many routines."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from routines_core.db.timeline import Lane


class Timeline(msgspec.Struct):
    """What routines did and will do in a time, beside each other."""

    from_: Annotated[datetime, Meta(description="When the time begins.")] = msgspec.field(name="from")
    to: Annotated[datetime, Meta(description="When it ends.")]
    bucket_seconds: Annotated[
        int, Meta(description="What is of one kind and begins within so many seconds is one mark.", examples=[600])
    ]
    routines: Annotated[list[Lane], Meta(description="A page of routines, by task and name.")]
