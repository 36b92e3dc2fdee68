"""Calendar feeds as they are sent and shown."""

from typing import Annotated

import msgspec
from msgspec import Meta

from routines_api.schemas.fields import RoutineScope


class FeedCreate(RoutineScope):
    """What a calendar feed shows. The body may be left out: then all routines of the collection."""


class FeedRead(msgspec.Struct):
    """A new calendar feed."""

    id: Annotated[int, Meta(description="By which it can be revoked.", examples=[7])]
    url: Annotated[str, Meta(description="To subscribe to in a calendar program. It holds the token.")]
    token: Annotated[str, Meta(description="Opens the feed; shown only now.")]
