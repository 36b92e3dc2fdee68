"""The endpoints of backfills: a range of slots that are filled afterwards."""

from typing import Annotated

from litestar import Controller, Response, delete, get, post
from litestar.params import Parameter

from routines_api.http.access import Caller
from routines_api.http.idempotency import given_key, once
from routines_api.http.pagination import Cursor, decode_cursor, page
from routines_api.http.paths import id_of
from routines_api.openapi.description import operation
from routines_api.schemas.backfills import BackfillCreate, BackfillPlan, BackfillRead, backfill_plan, backfill_read
from routines_core.db import backfills as db
from routines_core.db.routines import Routine, find_routine
from routines_core.errors import ConflictError, InvalidError

BackfillLimit = Annotated[int, Parameter(ge=1, le=100, description="Maximum number of backfills on a page.")]


class BackfillsController(Controller):
    """Operations on the backfills of a routine."""

    path = "/routines/{collection:str}/{task:str}/{name:str}/backfills"

    @post("/", **operation("createBackfill", body=BackfillCreate, idempotent=True, dry_run=BackfillPlan))
    async def create_backfill(self, task: str, name: str, caller: Caller) -> BackfillRead:
        """Fill slots afterwards.

        For each slot of the range whose run is missing, or is to be repeated, a run is started that has the slot as its
        own, a few at a time, while no other run of the routine is active. A dry run starts nothing, answers 200, and
        says what would become of each slot.
        """
        body = await caller.body(BackfillCreate)
        given_key(caller)  # refuses a malformed one, also of a dry run
        if body.to is not None and body.to <= body.from_:
            raise InvalidError("to: must be later than from.", "to")
        routine = await _routine(caller, task, name)
        if routine.cadence.type == "manual":
            raise ConflictError("A manual routine has no slots.")
        if body.dry_run:
            return await _plan(caller, routine, body.spec)  # pyright: ignore[reportReturnType] - another answer

        async def create() -> BackfillRead:
            made = await db.create_backfill(caller.connection, body.spec, key_id=caller.key_id, routine_id=routine.id)
            return await _find(caller, routine, made)

        return await once(caller, create, status=201)

    @get("/", **operation("listBackfills"))
    async def list_backfills(
        self, task: str, name: str, caller: Caller, *, limit: BackfillLimit = 20, cursor: Cursor = None
    ) -> Response[list[BackfillRead]]:
        """List the backfills of a routine.

        Newest first.
        """
        before = decode_cursor(cursor, int)
        routine = await _routine(caller, task, name)
        found = await db.list_backfills(
            caller.connection, key_id=caller.key_id, routine_id=routine.id, limit=limit + 1, before=before
        )
        return page(caller.request, found, limit, key=lambda each: each.id, show=backfill_read)

    @get("/{backfill_id:str}", **operation("getBackfill"))
    async def get_backfill(self, task: str, name: str, backfill_id: str, caller: Caller) -> BackfillRead:
        """Get a backfill.

        With the number of its runs by status, and the reason if none is started at the moment.
        """
        return await _find(caller, await _routine(caller, task, name), id_of(backfill_id))

    @delete("/{backfill_id:str}", **operation("cancelBackfill"))
    async def cancel_backfill(self, task: str, name: str, backfill_id: str, caller: Caller) -> None:
        """Cancel a backfill.

        It starts no more runs, and those that no worker has begun are cancelled. Runs in progress go on. A backfill
        that has ended stays as it is.
        """
        routine = await _routine(caller, task, name)
        await db.cancel_backfill(
            caller.connection, key_id=caller.key_id, routine_id=routine.id, backfill_id=id_of(backfill_id)
        )


async def _routine(caller: Caller, task: str, name: str) -> Routine:
    return await find_routine(caller.connection, key_id=caller.key_id, task=task, name=name)


async def _find(caller: Caller, routine: Routine, backfill_id: int) -> BackfillRead:
    found = await db.find_backfill(
        caller.connection, key_id=caller.key_id, routine_id=routine.id, backfill_id=backfill_id
    )
    return backfill_read(found)


async def _plan(caller: Caller, routine: Routine, spec: db.BackfillSpec) -> Response[BackfillPlan]:
    """Answer what the backfill would do.

    Raises:
        InvalidError: It has too many slots.
    """
    slots = await db.plan_backfill(caller.connection, spec, key_id=caller.key_id, routine_id=routine.id)
    if len(slots) > db.MOST_SLOTS:
        raise InvalidError(f"to: the range has more than {db.MOST_SLOTS} slots.", "to")
    return Response(backfill_plan(slots), status_code=200)


HANDLERS = [BackfillsController]
