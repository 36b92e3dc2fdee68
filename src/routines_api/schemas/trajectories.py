"""What is changed and shown of runs: statuses and labels, pages, statistics and events."""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from pydantic import ConfigDict, Field, RootModel, StringConstraints

from routines_api.schemas.fields import RUN_ID, RequestBody, TimeRead
from routines_core.db.trajectories import RunEvent, RunOfKey, Stats, Trajectory

STATUSES = ("pending", "running", "completed", "failed", "cancelled", "archived")


class StatusChanges(RootModel[dict[Annotated[str, Field(pattern=RUN_ID)], Literal["cancelled", "archived"]]]):
    """The new status of each run, by its id. All of them change, or none does."""

    model_config = ConfigDict(strict=True, json_schema_extra={"examples": [{"9876": "cancelled"}]})

    root: dict[Annotated[str, Field(pattern=RUN_ID)], Literal["cancelled", "archived"]] = Field(
        min_length=1, max_length=100
    )


class LabelCreate(RequestBody):
    """A label for a run. It replaces the label with the same key and author."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"key": "rating", "value": 5, "author": "ada"}]})

    key: str = Field(min_length=1, max_length=100, description="The aspect that the label rates or describes.")
    value: Annotated[str, StringConstraints(max_length=1000)] | int | float | bool = Field(
        description="A text of at most 1000 characters, a number or a boolean."
    )
    author: str = Field(default="", max_length=100, description="Who set the label.")


class TrajectoryPage(msgspec.Struct):
    """A page of a task's runs, newest first."""

    trajectories: Annotated[list[Trajectory], Meta(description="The runs of this page.")]
    total: Annotated[int, Meta(description="The number of runs on all pages, counted up to 100,000.", examples=[1])]
    page: Annotated[int, Meta(description="The number of this page, from 1.", examples=[1])]
    limit: Annotated[int, Meta(description="Maximum number of runs on a page.", examples=[10])]
    has_more: Annotated[bool, Meta(description="Whether there is a next page.")]


class Durations(msgspec.Struct):
    """Seconds from the first claim of a run to its end."""

    count: Annotated[int, Meta(description="How many runs were measured: the newest that have ended, at most 10,000.")]
    avg_seconds: Annotated[float | None, Meta(description="Their mean; null: no run has ended.")]
    min_seconds: Annotated[float | None, Meta(description="The shortest.")]
    p50_seconds: Annotated[float | None, Meta(description="Their median.")]
    p95_seconds: Annotated[float | None, Meta(description="Their 95th percentile.")]
    max_seconds: Annotated[float | None, Meta(description="The longest.")]


class StatsRead(msgspec.Struct):
    """Statistics of a task's runs."""

    total: Annotated[int, Meta(description="The number of runs.", examples=[12])]
    counts: Annotated[dict[str, int], Meta(description="The number of runs of each status; all six are listed.")]
    success_rate: Annotated[
        float | None,
        Meta(description="Completed runs as a share of completed and failed ones, 0 to 1; null: there are none."),
    ]
    durations: Annotated[Durations, Meta(description="How long runs took.")]


class Event(msgspec.Struct):
    """An event of a run."""

    at: Annotated[TimeRead, Meta(description="When.")]
    event: Annotated[str, Meta(description="What happened, for example step_completed.", examples=["step_completed"])]
    step: Annotated[str | None, Meta(description="The step; null: the event concerns the whole run.")]
    attempt: Annotated[int | None, Meta(description="How many times a worker had claimed the run; null: not known.")]
    try_number: Annotated[int | None, Meta(description="The attempt at the step or webhook, from 1; null: neither.")]
    detail: Annotated[
        str | None, Meta(description="The trigger, the activity, the error, or the answer of the webhook's receiver.")
    ]


class WorkflowLog(msgspec.Struct):
    """The events of a run."""

    workflow_id: Annotated[str, Meta(description="The run.", examples=["flow-my-org-greet--9876"])]
    trajectory_id: Annotated[int, Meta(description="The run.", examples=[9876])]
    status: Annotated[str, Meta(description="The status of the run.", examples=["completed"])]
    events: Annotated[list[Event], Meta(description="Oldest first.")]


def stats_read(stats: Stats) -> StatsRead:
    """Convert the stats of a task, adding the total and the success rate."""
    counts = {status: stats.counts.get(status, 0) for status in STATUSES}
    tried = counts["completed"] + counts["failed"]
    durations = Durations(
        stats.measured, stats.avg_seconds, stats.min_seconds, stats.p50_seconds, stats.p95_seconds, stats.max_seconds
    )
    return StatsRead(sum(counts.values()), counts, counts["completed"] / tried if tried else None, durations)


def workflow_log(run: RunOfKey, events: Sequence[RunEvent]) -> WorkflowLog:
    """Convert the events of a run."""
    shown = [Event(each.at, each.event, each.step, each.fence, each.attempt or None, each.detail) for each in events]
    return WorkflowLog(run.workflow_id, run.trajectory_id, run.status, shown)
