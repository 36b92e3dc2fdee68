"""The endpoints of routines; they exist only with ENABLE_ROUTINES."""

from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import msgspec
from litestar import Controller, Response, delete, get, patch, post
from litestar.params import Parameter

from routines_api.http.access import Caller
from routines_api.http.idempotency import once
from routines_api.http.limit_gate import ROUTINES
from routines_api.http.pagination import Cursor, decode_cursor, page
from routines_api.http.sealing import create_spec, patch_spec, run_now_spec
from routines_api.http.tracing import traceparent_of
from routines_api.openapi.description import operation
from routines_api.schemas.routines import (
    RoutineCreate,
    RoutineDetail,
    RoutinePatch,
    RoutinePause,
    RoutineRead,
    routine_detail,
    routine_read,
)
from routines_api.schemas.runs import RoutineRunNow, WorkflowResponse, workflow_response
from routines_api.schemas.tasks import InitParamsSchema, init_params_schema
from routines_core.db import routines as db
from routines_core.db.routines import RoutineChanges
from routines_core.db.tasks import find_task
from routines_core.db.trajectories import Run, find_trajectory, list_runs
from routines_core.errors import ConflictError, InvalidError, UnknownKeysError
from routines_core.mask import MASK

RoutineLimit = Annotated[int, Parameter(ge=1, le=1000, description="Maximum number of routines on a page.")]
RunLimit = Annotated[int, Parameter(ge=1, le=100, description="Maximum number of runs on a page.")]


class RoutinesController(Controller):
    """Operations on routines."""

    path = "/routines/{collection:str}"

    @post("/{task:str}", **operation("createRoutine", body=RoutineCreate, conflict=True, idempotent=True))
    async def create_routine(self, task: str, caller: Caller) -> RoutineRead:
        """Create a routine.

        Saves a recurring invocation of the task and computes its next slot. `name` must be unique in the task.
        """
        spec = await create_spec(caller, await caller.body(RoutineCreate))
        refusal = await caller.services.limits.ask(caller.connection, caller.auth, ROUTINES)

        async def create() -> RoutineRead:
            if refusal:
                raise refusal
            if not await db.create_routine(caller.connection, spec, key_id=caller.key_id, task=task):
                found = await find_task(caller.connection, key_id=caller.key_id, name=task)
                _refuse_unknown(spec.init_params_overrides, found.init_params, {})
            return routine_read(await _find(caller, task, spec.name))

        return await once(caller, create, status=201)

    @get("/", **operation("listRoutines"))
    async def list_collection(
        self, caller: Caller, *, limit: RoutineLimit = 1000, cursor: Cursor = None
    ) -> Response[list[RoutineRead]]:
        """List the routines of a collection.

        Sorted by task and name.
        """
        return await _list(caller, None, limit, cursor)

    @get("/{task:str}", **operation("listTaskRoutines"))
    async def list_task(
        self, task: str, caller: Caller, *, limit: RoutineLimit = 1000, cursor: Cursor = None
    ) -> Response[list[RoutineRead]]:
        """List the routines of a task.

        Sorted by name.
        """
        return await _list(caller, task, limit, cursor)

    @get("/{task:str}/{name:str}", **operation("getRoutine"))
    async def get_routine(self, task: str, name: str, caller: Caller) -> RoutineDetail:
        """Get a routine.

        With a warning for each override that the task no longer declares.
        """
        return routine_detail(await _find(caller, task, name))

    @patch("/{task:str}/{name:str}", **operation("updateRoutine", body=RoutinePatch, conflict=True))
    async def update_routine(self, task: str, name: str, caller: Caller) -> RoutineRead:
        """Update a routine.

        A field that is left out keeps its value. A run in progress is not touched; the next fire follows the new spec.
        """
        change = await patch_spec(caller, await caller.body(RoutinePatch), task=task, name=name)
        if not await db.patch_routine(caller.connection, change, key_id=caller.key_id, task=task, name=name):
            await explain_update(caller, task, name, change)
        return routine_read(await _find(caller, task, name if change.name is msgspec.UNSET else change.name))

    @delete("/{task:str}/{name:str}", **operation("deleteRoutine"))
    async def delete_routine(self, task: str, name: str, caller: Caller) -> None:
        """Delete a routine.

        Also removes its schedule; its trajectories are kept.
        """
        await db.delete_routine(caller.connection, key_id=caller.key_id, task=task, name=name)

    @post(
        "/{task:str}/{name:str}/pause",
        status_code=200,
        **operation("pauseRoutine", body=RoutinePause, body_required=False),
    )
    async def pause(self, task: str, name: str, caller: Caller) -> RoutineRead:
        """Pause a routine.

        Stops the schedule: after the answer, no slot fires until the routine is resumed, or until the time in the body,
        when it resumes by itself. May be repeated; the last request decides how long the pause lasts.
        """
        body = await caller.body_if_any(RoutinePause)
        try:
            await db.set_paused(
                caller.connection,
                key_id=caller.key_id,
                task=task,
                name=name,
                paused=True,
                until=body.until,
                note=body.note,
            )
        except InvalidError as error:  # in the words of this body
            raise InvalidError(str(error).removeprefix("paused_"), error.field.removeprefix("paused_")) from None
        return routine_read(await _find(caller, task, name))

    @post("/{task:str}/{name:str}/resume", status_code=200, **operation("resumeRoutine"))
    async def resume(self, task: str, name: str, caller: Caller) -> RoutineRead:
        """Resume a routine.

        Continues with the next slot from now; slots that fell in the pause are not caught up. May be repeated. A pause
        whose end has passed was over then, and this changes nothing about the slots since.
        """
        await caller.refuse_fields()
        await db.set_paused(caller.connection, key_id=caller.key_id, task=task, name=name, paused=False)
        return routine_read(await _find(caller, task, name))

    @post(
        "/{task:str}/{name:str}/run-now",
        status_code=200,
        **operation("runRoutineNow", body=RoutineRunNow, body_required=False, idempotent=True, conflict=True),
    )
    async def run_now(self, task: str, name: str, caller: Caller) -> WorkflowResponse:
        """Run a routine now.

        Works with any cadence, while the routine is paused, and while a run is active. Its next slot is unchanged. A
        body can change the parameters of this run, say which slot it is for, or refuse it while another run is active.
        """
        body = await caller.body_if_any(RoutineRunNow)
        refusal = await caller.services.limits.ask_run(caller.connection, caller.auth, with_webhook=True)

        async def start() -> WorkflowResponse:
            if refusal:
                raise refusal
            asked = await run_now_spec(caller, body, task=task, name=name)
            new = await db.run_now(
                caller.connection,
                key_id=caller.key_id,
                task=task,
                name=name,
                asked=asked,
                traceparent=traceparent_of(caller),
            )
            run = new.id or await _explain_run(caller, task, new)
            trajectory = await find_trajectory(caller.connection, key_id=caller.key_id, task=task, trajectory_id=run)
            return workflow_response(trajectory, f"Routine {name} was started.")

        return await once(caller, start, status=200)

    @get("/{task:str}/{name:str}/runs", **operation("listRoutineRuns"))
    async def runs(
        self, task: str, name: str, caller: Caller, *, limit: RunLimit = 20, cursor: Cursor = None
    ) -> Response[list[Run]]:
        """List the runs of a routine.

        Newest first.
        """
        before = decode_cursor(cursor, int)
        found = await list_runs(
            caller.connection, key_id=caller.key_id, task=task, name=name, limit=limit + 1, before=before
        )
        if not found:
            await _find(caller, task, name)  # 404 unless the routine exists
        return page(caller.request, found, limit, key=lambda run: run.trajectory_id, show=lambda run: run)


@get("/tasks/{collection:str}/{task:str}/init-params-schema", tags=["Routines"], **operation("getInitParamsSchema"))
async def get_init_params_schema(task: str, caller: Caller) -> InitParamsSchema:
    """List the keys that may be overridden.

    In the order of the task's `workflow.init_params`.
    """
    return init_params_schema(await find_task(caller.connection, key_id=caller.key_id, name=task))


async def _find(caller: Caller, task: str, name: str) -> db.Routine:
    return await db.find_routine(caller.connection, key_id=caller.key_id, task=task, name=name)


async def _list(caller: Caller, task: str | None, limit: int, cursor: str | None) -> Response[list[Any]]:
    after = decode_cursor(cursor, tuple[str, str])
    found = await db.list_routines(caller.connection, key_id=caller.key_id, limit=limit + 1, task=task, after=after)
    if task and not found:
        await find_task(caller.connection, key_id=caller.key_id, name=task)  # 404 unless the task exists
    return page(caller.request, found, limit, key=lambda last: (last.task_name, last.name), show=routine_read)


def _refuse_unknown(
    overrides: dict[str, Any], declared: Sequence[str] | dict[str, Any], stored: dict[str, Any]
) -> None:
    """Refuse override keys that the task does not declare, unless they are already stored with the same value."""
    undeclared = set(overrides) - set(declared)
    unknown = sorted(key for key in undeclared if key not in stored or stored[key] != overrides[key])
    if unknown:
        raise UnknownKeysError(unknown, list(declared))


async def explain_update(caller: Caller, task: str, name: str, change: RoutineChanges) -> None:
    """Raise an error that explains why an update changed nothing."""
    routine = await _find(caller, task, name)
    found = await find_task(caller.connection, key_id=caller.key_id, name=task)
    if change.init_params_overrides is not msgspec.UNSET:
        _refuse_unknown(change.init_params_overrides, found.init_params, routine.init_params_overrides)
    secrets = {} if change.secret_params is msgspec.UNSET else change.secret_params
    for key, secret in secrets.items():
        if secret is None and key not in routine.secret_names:
            _refuse_mask(f"secret_params.{key}")
    if change.keeps_webhook_secret and not routine.has_webhook_secret:
        _refuse_mask("webhook_secret")
    raise ConflictError("The routine or its task was changed at the same time: send the request again.")


async def _explain_run(caller: Caller, task: str, new: db.NewRun) -> NoReturn:
    """Raise an error that explains why run-now started nothing."""
    if new.unknown_keys:
        declared = (await find_task(caller.connection, key_id=caller.key_id, name=task)).init_params
        raise UnknownKeysError(new.unknown_keys, list(declared), "init_params")
    raise ConflictError(f"Run {new.blocked_by} of the routine is active.")


def _refuse_mask(field: str) -> None:
    raise InvalidError(f"{field}: {MASK} keeps a stored value, but none is stored: send the secret itself.", field)
