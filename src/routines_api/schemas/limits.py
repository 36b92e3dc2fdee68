"""The limits of a collection, as they are sent and shown."""

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta
from pydantic import ConfigDict, Field

from routines_api.schemas.fields import RequestBody
from routines_core.db.limits import LimitedTask, LimitInUse
from routines_core.limits import LIMITS


class LimitsPut(RequestBody):
    """The limits to set for a collection. Those left out return to their defaults."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"limits": {"tasks": 50, "stored_bytes": None}}]})

    limits: dict[str, int | None] = Field(description="By name; null for no limit.")


class CollectionLimit(msgspec.Struct):
    """A limit of the collection or of each of its runs."""

    name: Annotated[str, Meta(description="Name of the limit, as in limit-exceeded problems.", examples=["tasks"])]
    value: Annotated[int | None, Meta(description="The limit; null: no limit.")]
    default: Annotated[int | None, Meta(description="The value unless an operator sets another; null: no limit.")]
    use: Annotated[int | None, Meta(description="How much is used; null for a limit of each run.")]
    unit: Annotated[str, Meta(description="Unit of value, default and use.", examples=["tasks"])]
    description: Annotated[str, Meta(description="What it bounds, and what happens when it is reached.")]


class CollectionLimits(msgspec.Struct):
    """The limits of a collection and of its runs."""

    limits: Annotated[list[CollectionLimit], Meta(description="All of them.")]
    tasks: Annotated[list[LimitedTask], Meta(description="Tasks with a limit of concurrent runs of their own.")]


def collection_limits(limits: Sequence[LimitInUse], tasks: Sequence[LimitedTask]) -> CollectionLimits:
    """Return the answer for these limits."""
    known = [(limit, LIMITS[limit.name]) for limit in limits if limit.name in LIMITS]
    return CollectionLimits(
        [
            CollectionLimit(limit.name, limit.value, limit.default_value, limit.use, rule.unit, rule.description)
            for limit, rule in known
        ],
        list(tasks),
    )
