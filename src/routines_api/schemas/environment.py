"""The environment variables of a collection as they are shown."""

from typing import Annotated

import msgspec
from msgspec import Meta


class Environment(msgspec.Struct):
    """The environment variables of a collection."""

    environment_variables: Annotated[dict[str, str], Meta(description="Variables by name; each reads as ********.")]
