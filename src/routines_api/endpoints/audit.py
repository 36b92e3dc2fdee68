"""The endpoints of the audit: who changed what, and a routine's revisions, which can be restored."""

from functools import partial
from typing import Annotated

import msgspec
from litestar import Controller, Response, get, post
from litestar.params import Parameter

from routines_api.endpoints.routines import explain_update
from routines_api.http.access import Caller
from routines_api.http.pagination import Cursor, decode_cursor, page
from routines_api.http.paths import id_of
from routines_api.http.sealing import patch_spec
from routines_api.openapi.description import operation
from routines_api.schemas import faults
from routines_api.schemas.audit import ChangeRead, change_read, update_to
from routines_api.schemas.routines import RoutineDetail, RoutinePatch, routine_detail
from routines_core.db import audit as db
from routines_core.db.audit import Kind
from routines_core.db.routines import find_routine, patch_routine

ChangeLimit = Annotated[int, Parameter(ge=1, le=100, description="Maximum number of changes on a page.")]
KindFilter = Annotated[Kind | None, Parameter(description="Only changes of this kind.")]


@get("/audit/{collection:str}", tags=["Collections"], **operation("listChanges"))
async def list_changes(
    caller: Caller, *, kind: KindFilter = None, limit: ChangeLimit = 50, cursor: Cursor = None
) -> Response[list[ChangeRead]]:
    """List the changes in a collection.

    Newest first: who changed a routine, a task, a key, a limit, a calendar, a feed, an alert rule or the environment,
    with the fields before and after. Changes typed in psql and those of the scheduler are among them.
    """
    before = decode_cursor(cursor, int)
    found = await db.list_changes(caller.connection, key_id=caller.key_id, kind=kind, limit=limit + 1, before=before)
    return page(caller.request, found, limit, key=lambda each: each.id, show=change_read, kind=kind)


class RevisionsController(Controller):
    """Operations on the revisions of a routine."""

    path = "/routines/{collection:str}/{task:str}/{name:str}/revisions"

    @get("/", **operation("listRevisions"))
    async def list_revisions(
        self, task: str, name: str, caller: Caller, *, limit: ChangeLimit = 50, cursor: Cursor = None
    ) -> Response[list[ChangeRead]]:
        """List the revisions of a routine.

        Newest first: each change of it, with the fields before and after. Revision 1 is its creation.
        """
        before = decode_cursor(cursor, int)
        routine = await find_routine(caller.connection, key_id=caller.key_id, task=task, name=name)
        found = await db.list_revisions(
            caller.connection, key_id=caller.key_id, routine_id=routine.id, limit=limit + 1, before=before
        )
        return page(caller.request, found, limit, key=lambda each: each.revision, show=change_read)

    @post("/{revision:str}/restore", status_code=200, **operation("restoreRevision", conflict=True))
    async def restore(self, task: str, name: str, revision: str, caller: Caller) -> RoutineDetail:
        """Restore a revision of a routine.

        The routine does again what it did since that revision, as if by a PATCH, which is a revision too. Its name
        stays, and so does its pause. A secret keeps today's value if there is one of its name; `warnings` names those
        that are gone.
        """
        await caller.refuse_fields()
        routine = await find_routine(caller.connection, key_id=caller.key_id, task=task, name=name)
        spec = await db.find_spec(
            caller.connection, key_id=caller.key_id, routine_id=routine.id, revision=id_of(revision)
        )
        fields, lost = update_to(spec, routine)
        body = await caller.compute(partial(faults.validate, RoutinePatch, fields))
        change = await patch_spec(caller, body, task=task, name=name)
        change = msgspec.structs.replace(change, id=routine.id, after_failures=spec.get("then"))
        if not await patch_routine(caller.connection, change, key_id=caller.key_id, task=task, name=name):
            await explain_update(caller, task, name, change)
        restored = routine_detail(await find_routine(caller.connection, key_id=caller.key_id, task=task, name=name))
        restored.warnings += lost
        return restored


HANDLERS = [list_changes, RevisionsController]
