"""The endpoints that start runs of tasks, and answer at once or when the run has ended."""

from collections.abc import Callable
from typing import Any

import msgspec
from litestar import Response, post

from routines_api.http.access import Caller, Door, media_type_of, place_of, refuse_other_types
from routines_api.http.idempotency import once
from routines_api.http.large_answers import in_pieces, large_answer
from routines_api.http.limit_gate import FILES
from routines_api.http.multipart import MULTIPART, URLENCODED, Upload, received, urlencoded_texts, value_of
from routines_api.http.sealing import run_spec
from routines_api.http.tracing import traceparent_of
from routines_api.openapi.description import operation
from routines_api.schemas import faults
from routines_api.schemas.runs import RunCreate, WorkflowResponse, workflow_response
from routines_core.db import trajectories as db
from routines_core.db.keys import AuthContext
from routines_core.db.limits import note_own_files
from routines_core.db.tasks import find_task
from routines_core.errors import ConflictError, InvalidError, UnknownKeysError

SYNC_BYTES = db.WHOLE_BYTES // 2
"""Maximum size of the steps in the answer to run-sync, in bytes. The answer contains outputs twice."""
FILE_PATHS = "file_paths"
"""The init_param that holds the paths of a run's files; tasks need not declare it."""


class _Started(msgspec.Struct):
    trajectory_id: int


@post(
    "/run/{collection:str}/{task:str}",
    tags=["Runs"],
    status_code=200,
    **operation("runTask", body=RunCreate, idempotent=True, form=True),
)
async def run(task: str, door: Door) -> WorkflowResponse:
    """Run a task.

    Answers at once; to poll the trajectory, use the id after the last -- of `workflow_id`. Send JSON, or a form, which
    may have files.
    """
    return await _start(task, door, await door.admit())


@post(
    "/run-sync/{collection:str}/{task:str}",
    tags=["Runs"],
    status_code=200,
    **operation("runTaskSync", body=RunCreate, idempotent=True, form=True, may_wait=True),
)
async def run_sync(task: str, door: Door) -> Response[WorkflowResponse]:
    """Run a task and wait for the run to end.

    The answer has the result of the run, whatever its status. If its steps take more than 8 MiB, the outputs of the
    largest are left out, and the trajectory has `truncated`. If the run takes longer than the service waits, the
    answer is 202 without a result, and the run continues. It also continues if the client disconnects.
    """
    auth = await door.admit()
    run = _id_of(await _start(task, door, auth))
    services = door.services
    await services.run_waiter.wait(door.pool, auth.collection_id, run, services.settings.run_sync_seconds)
    async with door.open(auth) as caller:
        found = await db.find_trajectory(caller.connection, key_id=caller.key_id, task=task, trajectory_id=run)
    if found.ended_at is None:
        message = f"Run {run} continues: poll its trajectory."
        return Response(workflow_response(found, message), status_code=202)
    if not found.truncated:
        return Response(workflow_response(found, f"Run {run} is {found.status}."))
    async with large_answer(door, auth) as caller:
        found, steps = await db.with_large_steps(caller.connection, found, key_id=caller.key_id, most_bytes=SYNC_BYTES)
        return in_pieces(door, workflow_response(found, f"Run {run} is {found.status}.", steps), steps)


def _id_of(answer: Any) -> int:
    """Return the id of the run in an answer, which is new or was stored under an Idempotency-Key."""
    if isinstance(answer, WorkflowResponse):
        return answer.trajectory_id
    return msgspec.json.decode(answer.content, type=_Started).trajectory_id


async def _start(task: str, door: Door, auth: AuthContext) -> Any:
    """Start the run; only once if an Idempotency-Key was sent."""
    if media_type_of(door.request) == MULTIPART:
        return await _start_with_files(task, door, auth)
    async with door.body(auth) as body, door.open(auth, body) as caller:
        return await _start_once(caller, task, lambda: _value(caller), Upload())


async def _start_with_files(task: str, door: Door, auth: AuthContext) -> Any:
    """Start a run with files. Access and the task are checked before any file is stored."""
    async with door.open(auth) as caller:
        await find_task(caller.connection, key_id=caller.key_id, name=task)
        refuse_other_types(door.request, (MULTIPART,))
        if refusal := await caller.services.limits.ask(caller.connection, caller.auth, FILES):
            raise refusal
    services = door.services
    async with (
        place_of(services.uploads, auth.collection_id),
        received(door.request, services, auth.collection_id) as upload,
        door.open(auth, upload.content) as caller,
    ):
        return await _start_once(caller, task, lambda: value_of(upload.texts, services.json_limits), upload)


def _value(caller: Caller) -> Any:
    """Parse a body that is not multipart; an empty body counts as an empty object."""
    request = caller.request
    refuse_other_types(request, (URLENCODED, MULTIPART))
    if not caller.raw_body:
        return {}
    if media_type_of(request) == URLENCODED:
        return value_of(urlencoded_texts(caller.raw_body), caller.services.json_limits)
    return caller.json()


async def _start_once(caller: Caller, task: str, value: Callable[[], Any], upload: Upload) -> Any:
    body = await caller.compute(lambda: faults.validate(RunCreate, value()))
    if upload.paths and FILE_PATHS in body.init_params:
        field = f"init_params.{FILE_PATHS}"
        raise InvalidError(f"{field}: is set to the paths of the files sent: leave it out.", field)

    limits = caller.services.limits
    refusal = await limits.ask_run(caller.connection, caller.auth, with_webhook=body.webhook_url is not None)

    async def start() -> WorkflowResponse:
        if refusal:
            raise refusal
        spec = await run_spec(caller, body, upload.paths or None)
        run = await db.start_run(
            caller.connection, spec, key_id=caller.key_id, task=task, traceparent=traceparent_of(caller)
        )
        if run is None:
            await _explain(caller, task, body)
        else:
            upload.is_used = True
            if upload.paths:
                await note_own_files(
                    caller.connection, caller.key_id, files=len(upload.paths), size_bytes=upload.file_bytes
                )
        found = await db.find_trajectory(caller.connection, key_id=caller.key_id, task=task, trajectory_id=run or 0)
        return workflow_response(found, f"Task {task} was started.")

    return await once(caller, start, status=200)


async def _explain(caller: Caller, task: str, body: RunCreate) -> None:
    """Raise an error that explains why no run was started."""
    declared = (await find_task(caller.connection, key_id=caller.key_id, name=task)).init_params
    unknown = sorted(set(body.init_params) - set(declared))
    if unknown:
        raise UnknownKeysError(unknown, list(declared), "init_params")
    raise ConflictError("The task was changed at the same time: send the request again.")


HANDLERS = [run, run_sync]
