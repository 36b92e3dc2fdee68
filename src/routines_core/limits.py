"""The limits of a collection and of its runs: one table that feeds the command line, the HTTP API and the docs.

The values are in the database, where every program reads them: see sql/schema/14_limits.sql. A test checks that the
names and built-in values of both agree.
"""

import re
from typing import Literal, NamedTuple

from routines_core.errors import InvalidError

LARGEST = 2**53 - 1
"""The largest value: the largest integer that every JSON reader keeps exact."""
MOST_CONCURRENT = 2**31 - 1
CONCURRENCY = "max_concurrent_runs"
"""The only limit that a task may also have, and the only one without a default for all collections."""

Unit = Literal[
    "runs",
    "routines",
    "tasks",
    "feeds",
    "calendars",
    "alert rules",
    "webhooks",
    "files",
    "bytes",
    "steps",
    "events",
    "secrets",
    "runs per minute",
]


class LimitRule(NamedTuple):
    """A limit.

    Attributes:
        default: The built-in value; None for no limit.
        of_run: Whether it bounds each run rather than the collection as a whole.
        description: What it bounds, and what happens when it is reached.
    """

    unit: Unit
    default: int | None
    of_run: bool
    description: str


LIMITS: dict[str, LimitRule] = {
    CONCURRENCY: LimitRule(
        "runs", None, of_run=False, description="Runs that workers have claimed at once. Further runs wait."
    ),
    "active_runs": LimitRule(
        "runs",
        100_000,
        of_run=False,
        description="Pending and running runs. At the limit, HTTP starts no runs; the schedule continues.",
    ),
    "runs_per_minute": LimitRule(
        "runs per minute",
        6_000,
        of_run=False,
        description="Runs started by HTTP in a minute of the database's clock. The schedule continues.",
    ),
    "routines": LimitRule("routines", 100_000, of_run=False, description="Routines. At the limit, none can be added."),
    "tasks": LimitRule("tasks", 10_000, of_run=False, description="Tasks. At the limit, none can be added."),
    "feeds": LimitRule("feeds", 100, of_run=False, description="Calendar feeds. At the limit, none can be added."),
    "calendars": LimitRule("calendars", 100, of_run=False, description="Calendars. At the limit, none can be added."),
    "alert_rules": LimitRule(
        "alert rules", 100, of_run=False, description="Alert rules. At the limit, none can be added."
    ),
    "pending_webhooks": LimitRule(
        "webhooks",
        100_000,
        of_run=False,
        description="Webhooks still to be delivered. At the limit, HTTP starts no runs with a webhook.",
    ),
    "stored_bytes": LimitRule(
        "bytes",
        100 * 2**30,
        of_run=False,
        description="Stored runs and their steps, estimated every five minutes. At the limit, HTTP starts no runs.",
    ),
    "files": LimitRule(
        "files",
        100_000,
        of_run=False,
        description="Stored files, listed every hour; each counts when it is saved. At the limit, uploads are refused, "
        "and steps that save a file fail.",
    ),
    "file_bytes": LimitRule("bytes", 100 * 2**30, of_run=False, description="The bytes of these files."),
    "run_step_bytes": LimitRule(
        "bytes",
        16 * 2**20,
        of_run=True,
        description="Inputs and outputs of all steps of a run, as JSON; at most ROUTINES_MAX_RUN_BYTES. The step that "
        "would exceed it fails.",
    ),
    "run_steps": LimitRule(
        "steps", 1_000, of_run=True, description="Steps of a run. The step that would exceed it fails."
    ),
    "run_children": LimitRule(
        "runs",
        1_000,
        of_run=True,
        description="Runs in the tree of a run, without its root. The step that would start one more fails.",
    ),
    "run_log_events": LimitRule(
        "events",
        10_000,
        of_run=True,
        description="Events in the log of a run. The step or attempt that would exceed it fails.",
    ),
    "run_secrets": LimitRule(
        "secrets",
        100,
        of_run=True,
        description="Different secrets that a run reads, including those of its collection. The step that would read "
        "one more fails.",
    ),
}
"""By name, in the order in which they are shown."""

_SIZE = re.compile(r"(\d{1,16})(?: ?([KMGT])iB)?", re.ASCII)
_FACTORS = {None: 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def check_limit(name: str, value: int | None) -> None:
    """Check that the limit exists and may have this value; None for no limit.

    Raises:
        InvalidError: The limit does not exist, or the value is out of range; `field` is the limit's name.
    """
    if name not in LIMITS:
        raise InvalidError(f"{name}: no limit has this name (known: {', '.join(LIMITS)}).", name)
    least, most = (1, MOST_CONCURRENT) if name == CONCURRENCY else (0, LARGEST)
    if value is not None and not least <= value <= most:
        raise InvalidError(f"{name}: must be {least} to {most}, or none, not {value}.", name)


def parse_limit(name: str, text: str) -> int | None:
    """Parse a value as an operator types it: an integer, `none`, or for bytes also a size such as `16 MiB`.

    Raises:
        InvalidError: The limit does not exist, or may not have this value.
    """
    check_limit(name, None)
    if text == "none":
        return None
    found = _SIZE.fullmatch(text)
    if not found or (found[2] and LIMITS[name].unit != "bytes"):
        sizes = ", a size such as 16MiB" if LIMITS[name].unit == "bytes" else ""
        raise InvalidError(f"{text!r} is not a value of {name}: give an integer{sizes}, or none.", name)
    value = int(found[1]) * _FACTORS[found[2]]
    check_limit(name, value)
    return value
