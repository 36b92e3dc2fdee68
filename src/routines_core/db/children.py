"""Child runs and earlier runs, as a step uses them: sql/queries/children.sql called from Python."""

import msgspec

from routines_core.db.pool import Connection
from routines_core.db.runs import Claim
from routines_core.db.statements import NoRow, Statement

MAX_DEPTH = 10
"""Maximum depth of nested runs. A run without a parent has depth 1."""


class Started(msgspec.Struct, frozen=True):
    """The result of starting a child.

    Attributes:
        id: The child, started now or before; None if it was not started.
        is_ours: True if the parent still belonged to the caller.
        has_task: True if the collection has the task.
        is_tree_full: True if the parent's tree has as many runs as it may have.
        unknown_keys: Parameters that the task does not declare.
    """

    id: int | None
    is_ours: bool
    has_task: bool
    is_tree_full: bool
    unknown_keys: list[str]


class EndedChild(msgspec.Struct, frozen=True):
    """A run that has ended."""

    trajectory_id: int
    status: str
    error: str | None


class EndedRun(msgspec.Struct, frozen=True):
    """An earlier run, with what a step may read of it.

    Attributes:
        init_params: JSON.
        outputs: The outputs of its completed steps by name, as JSON; None if there is too much of them.
    """

    trajectory_id: int
    status: str
    init_params: str
    outputs: str | None


class _Outputs(msgspec.Struct):
    outputs: str


_START = Statement("children.start_child", Started)
_ENDED = Statement("children.ended", EndedChild)
_OUTPUTS = Statement("children.outputs", _Outputs)
_COUNT_AGAIN = Statement("children.count_again", NoRow)
_FIND_ENDED = Statement("children.find_ended", EndedRun)


async def start_child(
    connection: Connection,
    parent: Claim,
    *,
    step: str,
    task: str,
    init_params: str,
    index: int,
    attempt: int = 1,
    most_children: int | None = None,
    traceparent: str | None = None,
) -> Started:
    """Start the child of this step and index, or find it if it was started before. Locks the parent's row.

    A child that did not complete and that an attempt before `attempt` started is replaced by a new one. None is started
    if the tree of the parent already has `most_children` runs below its root, ended ones included; None for no limit.
    `traceparent` is the span of the step.
    """
    return await _START.one(
        connection,
        parent_id=parent.id,
        fence=parent.fence,
        step=step,
        task=task,
        init_params=init_params,
        child_index=index,
        attempt=attempt,
        max_depth=MAX_DEPTH,
        most_children=most_children,
        traceparent=traceparent,
    )


async def ended(connection: Connection, ids: list[int]) -> list[EndedChild]:
    """Return those of these runs that have ended."""
    return await _ENDED.all(connection, ids=ids)


async def outputs(connection: Connection, trajectory_id: int) -> str:
    """Return the outputs of a run's completed steps by name, as JSON."""
    return (await _OUTPUTS.one(connection, id=trajectory_id)).outputs


async def count_again(connection: Connection, run: Claim) -> None:
    """Count a run whose wait is over towards its limits again."""
    await _COUNT_AGAIN.run(connection, id=run.id, fence=run.fence)


async def find_ended(
    connection: Connection, *, collection_id: int, task: str, status: str | None, limit: int, most_bytes: int
) -> list[EndedRun]:
    """Return ended runs of a task, newest first, with at most `most_bytes` of outputs. A status of None matches any."""
    return await _FIND_ENDED.all(
        connection, collection_id=collection_id, task=task, status=status, limit=limit, most_bytes=most_bytes
    )
