"""The audit, who changed what: sql/queries/audit.sql called from Python. Triggers of the database write it."""

from datetime import datetime
from typing import Any, Literal

import msgspec

from routines_core.db.pool import Connection
from routines_core.db.statements import Statement
from routines_core.errors import NotFoundError

Kind = Literal["routine", "task", "key", "limit", "calendar", "feed", "rule", "environment"]
"""What was changed."""
LISTED_BYTES = 8 * 1024 * 1024
"""A page of a list ends once its fields take this many bytes."""
_ABOVE_ALL = 2**63 - 1


class Change(msgspec.Struct, frozen=True):
    """An entry of the audit.

    Attributes:
        actor: `key 7`, `operator`, `scheduler`, or `login alice` for a session of the database.
        action: created, changed or deleted.
        task_name: Of a routine: its task.
        name: What it was called then; None for the environment.
        routine_id: None unless it is a routine.
        revision: Of a routine: the number of this change, from 1.
        before: The fields that changed, as they were.
        after: The same fields as they are since. Secrets are masked.
        is_cut: True in the last entry of a page that ends for its size, so that more entries follow.
    """

    id: int
    at: datetime
    actor: str
    kind: str
    action: str
    task_name: str | None
    name: str | None
    routine_id: int | None
    revision: int | None
    before: dict[str, Any]
    after: dict[str, Any]
    is_cut: bool


class _Spec(msgspec.Struct):
    spec: dict[str, Any]


_LIST_CHANGES = Statement("audit.list_changes", Change)
_LIST_REVISIONS = Statement("audit.list_revisions", Change)
_FIND_SPEC = Statement("audit.find_spec", _Spec)


async def list_changes(
    connection: Connection, *, key_id: int, kind: Kind | None, limit: int, before: int | None = None
) -> list[Change]:
    """Return the changes in a collection before the entry `before`, newest first. None for the kind matches any.

    At most `limit`, and about LISTED_BYTES.
    """
    return await _LIST_CHANGES.all(
        connection,
        key_id=key_id,
        kind=kind,
        limit=limit,
        before=_ABOVE_ALL if before is None else before,
        page_bytes=LISTED_BYTES,
    )


async def list_revisions(
    connection: Connection, *, key_id: int, routine_id: int, limit: int, before: int | None = None
) -> list[Change]:
    """Return the changes of a routine before the revision `before`, newest first.

    At most `limit`, and about LISTED_BYTES.
    """
    return await _LIST_REVISIONS.all(
        connection,
        key_id=key_id,
        routine_id=routine_id,
        limit=limit,
        before=_ABOVE_ALL if before is None else before,
        page_bytes=LISTED_BYTES,
    )


async def find_spec(connection: Connection, *, key_id: int, routine_id: int, revision: int) -> dict[str, Any]:
    """Return what a routine was to do at a revision, in the words of the API, without fields that were not set.

    Raises:
        NotFoundError: The routine has no such revision, or it was deleted then.
    """
    found = await _FIND_SPEC.first(connection, key_id=key_id, routine_id=routine_id, revision=revision)
    if found is None or not found.spec:
        raise NotFoundError
    return found.spec
