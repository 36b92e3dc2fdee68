"""Alert rules as they are sent and shown."""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from routines_api.schemas.fields import IGNORED, TIME_OF_DAY, RoutineScope, WebhookUrl, WithWebhook
from routines_core.db.alert_rules import Rule
from routines_core.mask import MASK

DEFAULT_STREAK = 3
DEFAULT_DIGEST = "08:00"
RECOVERED = "recovered"

_Event = Literal["late", "missed", "failed", "streak", "slow", "paused", "webhook_stopped", "recovered"]
_EXAMPLE: dict[str, Any] = {
    "on": ["late", "missed", "failed", "recovered"],
    "after_seconds": 300,
    "scope": {"task": "greet"},
    "webhook_url": "https://example.com/alerts",
}


class AlertScope(RoutineScope):
    """Which routines a rule watches."""


class AlertRulePut(WithWebhook):
    """An alert rule to save. It replaces one of the same name whole. What a GET returned may be sent back."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    on: list[_Event] = Field(
        min_length=1,
        max_length=8,
        description="late: a slot has been due for longer than after_seconds and has no outcome. missed: a slot was "
        "missed. failed: a slot failed with its last attempt, or could not start. streak: so many slots in a row "
        "failed. slow: a scheduled run takes longer than after_seconds, or than three times what is usual. paused: "
        "the scheduler paused the routine. webhook_stopped: a webhook of its runs was given up. recovered: tells also "
        "when such an alert is over.",
    )
    after_seconds: Annotated[int, Field(ge=1, le=30 * 86400)] | None = Field(
        default=None,
        description="For late and slow. null: 60 for late, and for slow three times the 95th percentile of the "
        "routine's own runs, once five have completed.",
    )
    streak: Annotated[int, Field(ge=2, le=100)] | None = Field(
        default=None, description=f"For streak: how many failed slots in a row. null: {DEFAULT_STREAK}."
    )
    scope: AlertScope = Field(
        default_factory=AlertScope, description="Which routines it watches; all of the collection if it is left out."
    )
    webhook_url: WebhookUrl = Field(description="Gets a POST for each notice.")
    webhook_secret: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Signs the notices; reads as ********, which keeps it. null: not signed."
    )
    digest: Literal["now", "daily"] = Field(
        default="now", description="now: a notice for each alert. daily: one a day with all since the last one."
    )
    digest_at_utc: Annotated[str, Field(pattern=TIME_OF_DAY)] | None = Field(
        default=None, description=f"For daily: the time of day in UTC. null: {DEFAULT_DIGEST}.", examples=["08:00"]
    )
    name: Any = IGNORED
    updated_at: Any = IGNORED

    @field_validator("on")
    @classmethod
    def _opens_alerts(cls, on: list[str]) -> list[str]:
        if len(set(on)) < len(on):
            raise ValueError("must not name an event twice")
        if on == [RECOVERED]:
            raise ValueError("must name what may recover, beside recovered")
        return on

    @field_validator("after_seconds")
    @classmethod
    def _has_a_use(cls, seconds: int | None, info: ValidationInfo) -> int | None:
        if seconds is not None and "on" in info.data and not {"late", "slow"} & set(info.data["on"]):
            raise ValueError("is for late and slow; on names neither")
        return seconds

    @field_validator("streak")
    @classmethod
    def _is_on(cls, streak: int | None, info: ValidationInfo) -> int | None:
        if streak is not None and "on" in info.data and "streak" not in info.data["on"]:
            raise ValueError("is for streak, which on does not name")
        return streak

    @field_validator("digest_at_utc")
    @classmethod
    def _is_daily(cls, at: str | None, info: ValidationInfo) -> str | None:
        if at is not None and info.data.get("digest") == "now":
            raise ValueError("is for digest: daily")
        return at

    def stored_streak(self) -> int | None:
        """Return the streak to store; None if the rule does not watch for one."""
        return (self.streak or DEFAULT_STREAK) if "streak" in self.on else None

    def stored_digest(self) -> str | None:
        """Return the time of the digest to store; None to tell each alert at once."""
        return (self.digest_at_utc or DEFAULT_DIGEST) if self.digest == "daily" else None


class AlertScopeRead(msgspec.Struct):
    """Which routines a rule watches."""

    task: Annotated[str | None, Meta(description="Only routines of this task; null: of all tasks.")]
    routine: Annotated[str | None, Meta(description="Only this routine of the task; null: all of them.")]


class AlertRuleRead(msgspec.Struct):
    """An alert rule, with its secret masked."""

    name: Annotated[str, Meta(description="Unique in its collection.", examples=["on-call"])]
    on: Annotated[list[str], Meta(description="What it tells.", examples=[["late", "failed", "recovered"]])]
    after_seconds: Annotated[int | None, Meta(description="For late and slow; null: the defaults.")]
    streak: Annotated[int | None, Meta(description="How many failed slots in a row; null: it watches for no streak.")]
    scope: Annotated[AlertScopeRead, Meta(description="Which routines it watches.")]
    webhook_url: Annotated[str, Meta(description="Gets the notices.")]
    webhook_secret: Annotated[str | None, Meta(description="Signs them; reads as ********; null: not signed.")]
    digest: Annotated[str, Meta(description="now or daily.", examples=["now"])]
    digest_at_utc: Annotated[str | None, Meta(description="When the daily notice is sent; null: each at once.")]
    updated_at: Annotated[datetime, Meta(description="When it was last changed.")]


def rule_read(rule: Rule) -> AlertRuleRead:
    """Convert a rule."""
    return AlertRuleRead(
        rule.name,
        rule.events,
        rule.after_seconds,
        rule.streak,
        AlertScopeRead(rule.task, rule.routine),
        rule.webhook_url,
        MASK if rule.has_webhook_secret else None,
        "now" if rule.digest_at_utc is None else "daily",
        rule.digest_at_utc,
        rule.updated_at,
    )
