"""The answers to clients that follow a collection or a run."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from routines_api.schemas.routines import RoutineRead


class Changes(msgspec.Struct):
    """What has changed since an earlier answer."""

    cursor: Annotated[
        str, Meta(description="For `since` of the next request.", examples=["WzczNSwiMjAyNi0wNS0wNFQwOTowMDowMFoiXQ=="])
    ]
    as_of: Annotated[datetime, Meta(description="Up to when changes are known.")]
    is_whole: Annotated[bool, Meta(description="Whether these are all changes; false: read everything again.")]
    routines: Annotated[list[RoutineRead], Meta(description="Changed ones, as they are now.")] = []
    deleted: Annotated[list[int], Meta(description="The ids of routines that were deleted.", examples=[[41]])] = []


class RunChanges(msgspec.Struct):
    """Whether a run has come further since an earlier answer."""

    cursor: Annotated[str, Meta(description="For `since` of the next request.")]
    as_of: Annotated[datetime, Meta(description="Up to when changes are known.")]
    has_changed: Annotated[bool, Meta(description="Whether to read the run again.")]
