"""Step processes: a workflow in one of them harms no other collection and never the worker."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from routines_core.errors import InvalidError
from routines_engine.sandbox.messages import ChildEnded, Payload, RecordedStep
from routines_engine.sandbox.pool import ProcessPool, RunDiedError
from routines_engine.sandbox.process import CALLS_AT_ONCE, Limits, StepProcessHandle, _cpu_seconds
from support.flows import RUN_ID

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
STALL = "it kept its process busy for more than 1 s without a pause"
MEMORY = "it used more than 128 MiB of memory"


class Handler:
    """Answers the calls of one run and keeps its checkpoints."""

    def __init__(self, workflow: dict[str, Any], init_params: dict[str, Any] | None = None, **secrets: str) -> None:
        self.workflow = workflow
        self.init_params = init_params or {}
        self.secrets = secrets
        self.records: list[dict[str, Any]] = []
        self.began = asyncio.Event()
        self.is_waiting = False

    def payload(self) -> Payload:
        done = {each["name"]: each for each in self.records if each["status"] == "completed"}
        finished = {name: {"inputs": each["inputs"], "outputs": each["outputs"]} for name, each in done.items()}
        attempts = {each["name"]: each["attempt"] for each in self.records if each["name"] not in done}
        encode = msgspec.json.encode
        return Payload(
            encode(self.workflow),
            encode(self.init_params),
            encode(finished),
            attempts,
            "flow-a-b--1",
            RUN_ID,
            False,
            2**24,
        )

    def placed(self, *, is_alone: bool) -> None:
        pass

    def begun(self, step: RecordedStep) -> asyncio.Future[float]:
        self.records.append(msgspec.json.decode(step.record))
        self.began.set()
        stored: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        stored.set_result(0.0)
        return stored

    def completed(self, step: RecordedStep) -> None:
        self.records.append(msgspec.json.decode(step.record))

    async def reload(self) -> Payload:
        return self.payload()

    def child_ended(self, child_id: int) -> asyncio.Future[Any]:
        raise AssertionError(child_id)

    async def handle(self, method: str, arguments: msgspec.Raw) -> Any:
        given = msgspec.msgpack.decode(arguments)
        if method == "secret":
            found = self.secrets.get(given["name"])
            return [] if found is None else [found]
        if method == "read_file":
            raise InvalidError("there is no file 'x' in this collection")
        raise AssertionError(method)

    @property
    def story(self) -> list[tuple[str, str, int]]:
        return [(each["name"], each["status"], each["attempt"]) for each in self.records]

    @property
    def value(self) -> Any:
        return self.records[-1]["outputs"]["value"]


def steps(**configs: dict[str, Any]) -> dict[str, Any]:
    return {"steps": list(configs), "step_configs": configs}


def one(name: str, **config: Any) -> dict[str, Any]:
    return steps(it={"activity": name, **config})


@asynccontextmanager
async def pool(stall_seconds: float = 1.0, **options: Any) -> AsyncGenerator[ProcessPool]:
    limits = Limits(memory_bytes=128 * MIB, stall_seconds=stall_seconds)
    made = ProcessPool(limits=limits, modules=["support.hostile_activities"], **options)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


async def run(processes: ProcessPool, handler: Handler, collection: int = 1) -> str | None:
    ended = await processes.run(collection, handler, handler.payload())
    assert not ended.is_internal
    return ended.error


async def test_a_workflow_leaves_masked_checkpoints() -> None:
    handler = Handler(one("text_echo", text="the {{ secret_params.S }} word"), S="s3cret")
    async with pool() as processes:
        assert await run(processes, handler) is None
    assert handler.story == [("it", "running", 1), ("it", "completed", 1)]
    assert handler.records[-1]["outputs"] == {"text": "the ******** word"}
    assert "s3cret" not in str(handler.records)


async def test_a_refused_service_fails_the_step_with_its_message() -> None:
    handler = Handler(one("read_text_file", path="x"))
    async with pool() as processes:
        assert await run(processes, handler) == "step 'it' failed: there is no file 'x' in this collection"


async def test_a_step_process_has_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTINES_ENCRYPTION_KEYS", "k:secret")
    monkeypatch.setenv("DATABASE_URL", "postgresql://x")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=secret")
    handler = Handler(one("whereabouts"))
    async with pool() as processes:
        assert await run(processes, handler) is None
    assert handler.value["pid"] != os.getpid()
    private = ("ROUTINES_", "DATABASE_", "PG", "OTEL_")
    assert not [name for name in handler.value["environment"] if name.startswith(private)]


@pytest.mark.parametrize(("name", "cause"), [("stall", STALL), ("hoard", MEMORY), ("vanish", "its process was lost")])
async def test_a_step_that_ends_its_process_fails_alone_with_the_reason(name: str, cause: str) -> None:
    bad, beside, other = Handler(one(name)), Handler(one("linger", seconds=0.3)), Handler(one("linger", seconds=0.3))
    async with pool() as processes:
        errors = await asyncio.gather(run(processes, bad), run(processes, beside), run(processes, other, 2))
    assert errors == [f"step 'it' failed: {cause}", None, None]
    assert bad.story[-1] == ("it", "failed", 1)
    assert other.story == [("it", "running", 1), ("it", "completed", 1)], "another collection's run started once"


async def test_a_step_that_ends_its_process_follows_its_retry_policy() -> None:
    handler = Handler(one("vanish", fail_at=1, retry={"max_attempts": 2, "backoff": 0.01}))
    async with pool() as processes:
        assert await run(processes, handler) is None
    assert handler.story[-1] == ("it", "completed", 2)


async def test_a_run_that_no_process_can_even_read_is_given_up() -> None:
    handler = Handler(one("text_echo", text="x"), {"large": ["y" * 1000] * 40_000})
    async with pool() as processes:
        processes.limits = Limits(memory_bytes=8 * MIB)
        for process in list(processes._processes):
            await process.close()
        with pytest.raises(RunDiedError, match="more than 8 MiB") as raised:
            await processes.run(1, handler, handler.payload())
    assert raised.value.attempt is None


async def test_a_step_whose_failure_no_process_can_record_is_given_up() -> None:
    """The second step's own config is small, but resolving it stalls every process, before its activity is called."""
    handler = Handler(steps(first={"activity": "whereabouts"}, it={"activity": "stall_when_read", "value": "x"}))
    async with pool() as processes:
        with pytest.raises(RunDiedError) as raised:
            await processes.run(1, handler, handler.payload())
    assert raised.value.attempt is not None
    assert (raised.value.attempt.step, raised.value.cause) == ("it", STALL)


async def test_finished_steps_are_not_repeated_after_a_death() -> None:
    handler = Handler(steps(first={"activity": "text_echo", "text": "x"}, second={"activity": "vanish"}))
    async with pool() as processes:
        assert await run(processes, handler) == "step 'second' failed: its process was lost"
    assert handler.story.count(("first", "completed", 1)) == 1


async def test_one_collection_does_not_take_every_process() -> None:
    many = [Handler(one("linger", seconds=3)) for _ in range(60)]
    async with pool(size=8) as processes:
        busy = [asyncio.create_task(run(processes, each)) for each in many]
        await asyncio.sleep(0.5)
        began, quick = time.monotonic(), Handler(one("text_echo", text="x"))
        assert await run(processes, quick, 2) is None
        assert time.monotonic() - began < 1
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)


@pytest.mark.parametrize(("size", "is_left"), [(8, True), (2, False)])
async def test_a_run_alone_leaves_the_spare_process_to_others_while_there_can_be_more(
    size: int, *, is_left: bool
) -> None:
    async with pool(size=size) as processes:
        assert len(processes._processes) == 2
        (await processes._process_for(2, is_alone=False)).is_exclusive = False
        assert (processes._own_process(1) is None) == is_left
        alone = await asyncio.wait_for(processes._process_for(1, is_alone=True), 10)
        assert alone.is_exclusive
        assert (processes._idle() is not None) == is_left


async def test_runs_that_wait_take_no_place_from_others() -> None:
    waiting = [Handler(one("linger", seconds=30)) for _ in range(12)]
    async with pool(size=2, runs_per_process=4) as processes:
        held: list[asyncio.Task[str | None]] = []
        for handler in waiting:
            held.append(asyncio.create_task(run(processes, handler)))
            await asyncio.wait_for(handler.began.wait(), 10)
            handler.is_waiting = True
        assert await asyncio.wait_for(run(processes, Handler(one("text_echo", text="x"))), 10) is None
        assert await asyncio.wait_for(run(processes, Handler(one("text_echo", text="x")), 2), 10) is None
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)


class Parent(Handler):
    """Starts its children a few milliseconds apart and lets all of them end at once."""

    def __init__(self, children: int) -> None:
        emit = one("list_emit_await", task="child", items=list(range(children)), max_concurrency=children)
        super().__init__(emit)
        self.in_hand = self.most_in_hand = self.most_tasks = 0
        self.called = asyncio.Event()
        self.waits: list[asyncio.Future[Any]] = []
        self.children = children

    def child_ended(self, child_id: int) -> asyncio.Future[Any]:
        assert child_id < self.children
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.waits.append(future)
        if len(self.waits) == self.children:
            self.most_tasks = len(asyncio.all_tasks())
            for number, each in enumerate(self.waits):
                each.set_result(ChildEnded(number, "completed", None))
        return future

    async def handle(self, method: str, arguments: msgspec.Raw) -> Any:
        self.called.set()
        self.in_hand += 1
        self.most_in_hand = max(self.most_in_hand, self.in_hand)
        await asyncio.sleep(0.005)
        self.in_hand -= 1
        return b"{}" if method == "child_outputs" else msgspec.msgpack.decode(arguments)["index"]


async def test_calls_are_handled_a_few_at_once_and_children_are_awaited_without_tasks() -> None:
    handler = Parent(children=100)
    async with pool() as processes:
        before = len(asyncio.all_tasks())
        assert await run(processes, handler) is None
    assert handler.records[-1]["outputs"]["trajectory_ids"] == list(range(100))
    assert handler.most_in_hand == CALLS_AT_ONCE
    assert handler.most_tasks <= before + CALLS_AT_ONCE


async def test_calls_of_a_run_that_has_ended_are_not_handled() -> None:
    handler, other = Parent(children=100), Handler(one("text_echo", text="x"))
    async with pool() as processes:
        running = asyncio.create_task(run(processes, handler))
        await handler.called.wait()
        running.cancel()
        await asyncio.wait({running})
        assert await run(processes, other) is None
    assert not handler.waits


async def test_a_cancelled_run_stops_in_its_process() -> None:
    handler = Handler(one("linger", seconds=60))
    async with pool() as processes:
        task = asyncio.create_task(run(processes, handler))
        await asyncio.wait_for(handler.began.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await run(processes, Handler(one("text_echo", text="x")), 2) is None


async def cancelled_while_busy(processes: ProcessPool) -> StepProcessHandle:
    """Cancel a run whose step keeps its process busy for a minute. Returns the process."""
    task = asyncio.create_task(run(processes, Handler(one("stall", seconds=60))))
    async with asyncio.timeout(20):
        while not (found := [each for each in processes._processes if each.runs]):  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.01)
        idle_seconds = _cpu_seconds(found[0].pid) or 0.0
        while (_cpu_seconds(found[0].pid) or 0.0) < idle_seconds + 0.2:  # noqa: ASYNC110 - the same
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return found[0]


async def test_a_process_that_is_busy_with_a_cancelled_run_gets_no_run_of_another_collection() -> None:
    async with pool(stall_seconds=60) as processes:
        busy = await cancelled_while_busy(processes)
        async with asyncio.timeout(20):
            for _ in range(3):
                assert await run(processes, Handler(one("text_echo", text="x")), 2) is None
        assert not busy.is_gone


async def test_a_process_that_stays_busy_with_a_cancelled_run_is_killed() -> None:
    async with pool() as processes:
        busy = await cancelled_while_busy(processes)
        async with asyncio.timeout(20):
            while not busy.is_gone:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.05)


async def test_a_process_whose_cancelled_run_has_stopped_is_free_for_other_collections() -> None:
    handler = Handler(one("linger", seconds=60))
    async with pool(size=1, spare=0) as processes:
        task = asyncio.create_task(run(processes, handler))
        await asyncio.wait_for(handler.began.wait(), 10)
        task.cancel()
        async with asyncio.timeout(20):
            assert await run(processes, Handler(one("text_echo", text="x")), 2) is None


async def test_the_processes_end_with_the_pool() -> None:
    handler = Handler(one("whereabouts"))
    async with pool() as processes:
        assert await run(processes, handler) is None
    with pytest.raises(ProcessLookupError):
        os.kill(handler.value["pid"], 0)


async def test_completed_steps_of_a_large_run_are_kept_when_making_the_next_step_ends_the_process() -> None:
    """`stall_when_read` ends its process before anything of it is stored, and no process can record that."""
    handler = Handler(
        steps(first={"activity": "text_echo", "text": "x" * 10_000}, it={"activity": "stall_when_read", "value": "x"})
    )
    async with pool() as processes:
        with pytest.raises(RunDiedError):
            await processes.run(1, handler, handler.payload())
    assert handler.story.count(("first", "completed", 1)) == 1
