"""What people send in: pydantic models that refuse what they do not know."""

import re
from typing import Any, Literal, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from routines_core.errors import InvalidError

SLUG = r"^[a-z0-9]([a-z0-9_-]{0,98}[a-z0-9])?$"
"""The same rule as the domain routines.slug."""
MAX_BODY_BYTES = 256 * 1024
"""The largest request body."""

_NUL = re.compile(rb"\\u0000")


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class CadenceConfig(_Body):
    """When the slots fall, in UTC. A parameter that is null, or its default, counts as not given."""

    type: Literal["manual", "hourly", "daily", "weekdays", "weekly"]
    hour_utc: int | None = Field(default=None, ge=0, le=23)
    minute_utc: int | None = Field(default=0, ge=0, le=59)
    day_of_week: Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"] | None = None

    @model_validator(mode="after")
    def _fits_its_type(self) -> "CadenceConfig":
        wants_hour = self.type in {"daily", "weekdays", "weekly"}
        if wants_hour and self.hour_utc is None:
            raise ValueError(f"hour_utc is required by {self.type}")
        if not wants_hour and self.hour_utc is not None:
            raise ValueError(f"hour_utc does not go with {self.type}: leave it out")
        if self.type == "manual" and self.minute_utc:
            raise ValueError("minute_utc does not go with manual: leave it out")
        if self.type == "weekly" and self.day_of_week is None:
            raise ValueError("day_of_week is required by weekly")
        if self.type != "weekly" and self.day_of_week is not None:
            raise ValueError(f"day_of_week does not go with {self.type}: leave it out")
        return self


class RoutineCreate(_Body):
    """A routine to save."""

    name: str = Field(pattern=SLUG)
    cadence: CadenceConfig
    init_params_overrides: dict[str, Any] = {}
    secret_params: dict[str, str] = {}
    webhook_url: str | None = None
    webhook_secret: str | None = None
    paused: bool = False

    @field_validator("secret_params", "webhook_secret")
    @classmethod
    def _no_secrets_yet(cls, value: object) -> object:
        # Refused rather than dropped: what is accepted must be kept.
        if value:
            raise ValueError("secrets cannot be stored by this version: leave it out")
        return value


class TaskCreate(_Body):
    """A task to save."""

    name: str = Field(pattern=SLUG)
    description: str = ""
    workflow: dict[str, Any]

    @field_validator("workflow")
    @classmethod
    def _declares_an_object(cls, workflow: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(workflow.get("init_params", {}), dict):
            raise ValueError("init_params must be an object")  # noqa: TRY004 - pydantic collects ValueError
        return workflow


class BodyTooLargeError(InvalidError):
    """The body is over the limit."""


Body = TypeVar("Body", bound=_Body)


def parse_body(model: type[Body], body: bytes) -> Body:
    """The model that this JSON body is.

    Raises:
        BodyTooLargeError: It has more than `MAX_BODY_BYTES`.
        InvalidError: It is not JSON, holds a NUL, or breaks a rule; the message names each field and rule.
    """
    if len(body) > MAX_BODY_BYTES:
        raise BodyTooLargeError(f"The body has {len(body)} bytes; the limit is {MAX_BODY_BYTES}.")
    if _NUL.search(body):
        raise InvalidError("The body holds a NUL character (\\u0000), which cannot be stored.")
    try:
        return model.model_validate(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidError(f"The body is not valid JSON: {error}.") from None
    except ValidationError as error:
        raise InvalidError("; ".join(_sentence(fault["loc"], fault["msg"]) for fault in error.errors()) + ".") from None


def _sentence(location: tuple[int | str, ...], message: str) -> str:
    """One fault: the field and the rule, never what was sent."""
    field = ".".join(map(str, location))
    rule = "unknown field" if message.startswith("Extra inputs") else message.removeprefix("Value error, ")
    return f"{field}: {rule}" if field else rule
