"""What the service says of itself."""

from typing import Annotated

import msgspec
from msgspec import Meta


class Health(msgspec.Struct):
    """The service answers."""

    status: Annotated[str, Meta(description="ok.", examples=["ok"])] = "ok"
