"""The messages that a worker and its step processes exchange."""

import msgspec

from routines_core.db.limits import RunLimits

NIL = msgspec.Raw(b"\xc0")
"""None as msgpack."""


class Arguments(msgspec.Struct, frozen=True):
    """The command line of a step process, as one JSON argument.

    Attributes:
        file_descriptor: Its end of the socket to the worker.
        progress_descriptor: The memory in which it notes the attempts that are in progress.
        places: The most runs that it has at once, each with a place for its note.
        memory_bytes: What it may allocate beyond what it has when it starts.
        modules: Imported at the start, beside the installed entry points: where more activities are.
    """

    file_descriptor: int
    progress_descriptor: int
    places: int
    worker_pid: int
    memory_bytes: int
    log_format: str
    modules: list[str] = []


class RecordedStep(msgspec.Struct, frozen=True, array_like=True):
    """A checkpoint of a step, as the worker passes it on to the journal.

    Attributes:
        status: running, completed or failed.
        is_retry: Whether it records that the attempt before failed.
        record: The StepRecord as JSON, masked.
    """

    name: str
    activity: str
    status: str
    attempt: int
    is_retry: bool
    record: bytes


class Death(msgspec.Struct, frozen=True, array_like=True):
    """Says which attempt of which step ended an earlier step process, and why."""

    step: str
    attempt: int
    cause: str


class Payload(msgspec.Struct, frozen=True, array_like=True):
    """What a step process needs of a run; the worker passes it on without reading it.

    Attributes:
        workflow: The stored workflow as JSON.
        init_params: The run's parameters as JSON.
        finished_steps: `{inputs, outputs}` by name of the steps that completed before, as JSON, and `has_file` if the
            outputs are in a file.
        attempts: The attempt that each unfinished step had reached, by name.
        most_bytes: How much the steps of the run may hold, as JSON: at most limits.step_bytes.
        limits: The limits of the run.
        finished: The number of completed steps.
        log_events: The number of events in the run's log.
        traceparent: The run's span; empty if it is not traced.
    """

    workflow: bytes
    init_params: bytes
    finished_steps: bytes
    attempts: dict[str, int]
    workflow_id: str
    run_id: str
    allow_private: bool
    most_bytes: int
    limits: RunLimits = RunLimits()
    finished: int = 0
    log_events: int = 0
    traceparent: str = ""


class ChildEnded(msgspec.Struct, frozen=True):
    """How a run that a step started has ended."""

    trajectory_id: int
    status: str
    error: str | None


class FoundRun(msgspec.Struct, frozen=True):
    """An earlier run that a step reads.

    Attributes:
        init_params: JSON.
        outputs: The outputs of its completed steps by name, as JSON.
    """

    trajectory_id: int
    status: str
    init_params: bytes
    outputs: bytes


class Attempt(msgspec.Struct, frozen=True, array_like=True):
    """One attempt of one step."""

    position: int
    step: str
    number: int


class Start(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Worker to process: run this workflow.

    Attributes:
        run: Names the run on this connection.
        place: Where the process notes the attempt that is in progress.
        death: Set when an attempt of this run ended its process before.
    """

    run: int
    place: int
    payload: Payload
    death: Death | None = None


class Cancel(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Worker to process: stop this run and send nothing more about it."""

    run: int


class Answered(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Worker to process: the answer to a call.

    Attributes:
        value: The result as msgpack.
        error: The message of the error that the call raised instead, with its class's name.
    """

    call: int
    value: msgspec.Raw = NIL
    error: tuple[str, str] | None = None


class Ping(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Worker to process: answer at once, to show that the event loop is alive."""

    number: int


class Pong(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Process to worker: the answer to a ping."""

    number: int


class Completed(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Process to worker: a step has completed. It is not answered: the worker stores it with what follows."""

    run: int
    step: RecordedStep


class Begun(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Process to worker: an attempt of a step begins or has failed. It is answered once that is stored."""

    run: int
    call: int
    step: RecordedStep


class Call(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Process to worker: call a service of the run.

    Attributes:
        arguments: Keyword arguments as msgpack.
    """

    run: int
    call: int
    method: str
    arguments: msgspec.Raw


class AwaitChild(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Process to worker: answer with a ChildEnded once this child has ended."""

    run: int
    call: int
    child_id: int


class Ended(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Process to worker: the run has ended, or waits so long that it gives up its place.

    Attributes:
        error: Why the run failed, masked; None if it completed.
        wait_seconds: How long the run waits for the next attempt of a step; None if it has ended.
        is_internal: The process met an error that is not the workflow's fault.
    """

    run: int
    error: str | None = None
    wait_seconds: float | None = None
    is_internal: bool = False


FromWorker = Start | Cancel | Answered | Ping
FromProcess = Pong | Begun | Completed | Call | AwaitChild | Ended
