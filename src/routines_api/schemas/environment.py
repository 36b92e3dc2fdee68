"""The environment variables of a collection, as they are sent and shown."""

from typing import Annotated

import msgspec
from msgspec import Meta
from pydantic import ConfigDict, Field

from routines_api.schemas.fields import ENVIRONMENT_NAME, RequestBody


class EnvironmentPatch(RequestBody):
    """Environment variables to set or remove; the others are kept."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"environment_variables": {"API_URL": "https://example.com"}}]}
    )

    environment_variables: dict[Annotated[str, Field(pattern=ENVIRONMENT_NAME)], str | None] = Field(
        max_length=100, description="Values by name: null removes the variable, ******** keeps the stored value."
    )


class Environment(msgspec.Struct):
    """The environment variables of a collection."""

    environment_variables: Annotated[dict[str, str], Meta(description="Variables by name; each reads as ********.")]
