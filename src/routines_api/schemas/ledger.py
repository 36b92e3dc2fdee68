"""Coming slots of a routine, and explanations of its times."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from routines_core.db.ledger import Why


class Slots(msgspec.Struct):
    """Coming slots, the next one first."""

    slots: Annotated[list[datetime], Meta(description="Times in UTC.", examples=[["2026-05-04T09:00:00Z"]])]


class WhyRead(msgspec.Struct):
    """The explanation of a time of a routine."""

    sentence: Annotated[str, Meta(description="For people.", examples=["No slot: the next is 2026-05-05T09:00:00Z."])]
    facts: Annotated[Why, Meta(description="For programs; facts that do not apply are null.")]
