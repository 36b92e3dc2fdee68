"""Runs on Temporal behave as on the Postgres engine: results, records, limits, children and ends."""

import asyncio
from collections.abc import Generator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError

from routines_core import tracing
from routines_core.db import Connection, limits, runs
from routines_core.db.tick import tick
from routines_core.otel import OtelTracer
from routines_workflow.activity import ACTIVITIES, StepContext, activity
from support.rows import CATCHUP, Database, at, make_routine, value
from support.stumbling_activities import stumbling_pool
from support.temporal_working import temporal_id_of, temporal_working
from support.working import run_id_of, run_of, task_of, until, until_ended, workflow_of, working

pytestmark = pytest.mark.slow

ECHO = {"activity": "text_echo", "text": "hi"}
RECORDS = """SELECT coalesce(jsonb_agg(jsonb_build_object(
                 'name', name, 'position', position, 'status', status, 'activity', activity, 'inputs', inputs,
                 'outputs', outputs, 'error', error, 'try', attempt,
                 'earlier', jsonb_path_query_array(earlier_errors, '$[*].error')) ORDER BY position), '[]')
             FROM routines.steps WHERE trajectory_id = %s"""


class Named(msgspec.Struct):
    """A name, and a number of times."""

    name: str = ""
    times: int = 0


class Value(msgspec.Struct):
    """Any value."""

    value: Any


@pytest.fixture(autouse=True)
def activities() -> Generator[dict[str, int]]:
    """The activities of these tests, and how often each was called."""
    known, calls = set(ACTIVITIES), dict[str, int]()

    @activity("Fails at first.", Named)
    async def stumble(given: Named, context: StepContext) -> Value:
        if context.attempt <= given.times:
            raise ValueError(f"no luck with {given.name}, try {context.attempt}")
        return Value(context.idempotency_key)

    @activity("Waits until it is cancelled.", Named)
    async def linger(given: Named, _: StepContext) -> Value:
        calls[given.name] = calls.get(given.name, 0) + 1
        try:
            await asyncio.sleep(3600)
        finally:
            calls[f"{given.name} was stopped"] = 1
        return Value(None)

    @activity("A plain function.", Named)
    def block(given: Named, _: StepContext) -> Value:
        return Value(given.name)

    yield calls
    for name in set(ACTIVITIES) - known:
        del ACTIVITIES[name]


COMPARED = {"status", "step", "activity", "attempt"}
"""What the spans of both engines must have in common; the numbers of the runs differ."""
RETRY = {"max_attempts": 3, "backoff": 0}
SCENARIOS: dict[str, dict[str, Any]] = {
    "references": workflow_of(
        ("one", ECHO), ("two", {"activity": "text_split", "text": "{{ one.outputs.text }} there", "separator": " "}),
        ("three", {"activity": "text_echo", "text_path": "two.outputs.parts[1]"}),
    ),
    "nothing": workflow_of(),
    "plain": workflow_of(("block", {"activity": "block", "name": "x"})),
    "retried": workflow_of(("try", {"activity": "stumble", "name": "it", "times": 2, "retry": RETRY}), ("then", ECHO)),
    "in_vain": workflow_of(("try", {"activity": "stumble", "name": "it", "times": 9, "retry": RETRY}), ("then", ECHO)),
    "slow": workflow_of(("wait", {"activity": "linger", "name": "slow", "timeout_seconds": 0.05})),
    "unknown": workflow_of(("one", ECHO), ("shout", {"activity": "text_shout"})),
    "missing": workflow_of(("one", {"activity": "text_echo", "text_path": "later.outputs.text"})),
    "unconfigured": {"steps": ["one"], "step_configs": {}},
    "malformed": {"steps": [{"a": 1}], "step_configs": {}},
}  # fmt: skip


async def ends(connection: Connection, tasks: dict[str, int]) -> dict[str, Any]:
    """Run each task once. Returns how the runs ended and their records, without the run_ids in idempotency keys."""
    made = {name: await run_of(connection, task) for name, task in tasks.items()}
    found: dict[str, Any] = {}
    for name, run in made.items():
        end = await until_ended(connection, run)
        records = msgspec.json.encode(await value(connection, RECORDS, run)).decode()
        found[name] = end, records.replace(f"{await run_id_of(connection, run)}/", "RUN/")
    return found


async def test_a_late_run_speaks_of_its_slot(database: Database, temporal: Client, connection: Connection) -> None:
    says = {"activity": "text_template", "template": "{{ slot.date }}, after {{ slot.previous }}"}
    task = await task_of(connection, "speak", workflow_of(("say", says)))
    await make_routine(connection, task, at("2026-05-04 09:00"))
    await tick(connection, batch_size=10, now=at("2026-05-04 09:20"), **CATCHUP)
    run = await value(connection, "SELECT id FROM routines.trajectories")
    assert isinstance(run, int)
    async with temporal_working(database.url, temporal):
        assert await until_ended(connection, run) == ("completed", None)
    said = await value(connection, "SELECT outputs ->> 'text' FROM routines.steps WHERE trajectory_id = %s", run)
    assert said == "2026-05-04, after 2026-05-03T09:00:00Z"


async def test_a_scheduled_run_that_failed_is_run_again(
    database: Database, temporal: Client, connection: Connection
) -> None:
    says = {"activity": "text_template", "template": "{{ slot.date }}"}
    trips = {"activity": "stumble", "name": "it", "times": 9}
    task = await task_of(connection, "trip", workflow_of(("say", says), ("trip", trips)))
    await make_routine(connection, task, at("2026-05-04 09:00"))
    await connection.execute(
        """UPDATE routines.routines SET retry = '{"max_attempts": 2, "backoff": [0], "until": 604800}'"""
    )
    await tick(connection, batch_size=10, now=at("2026-05-04 09:20"), **CATCHUP)
    await connection.execute("UPDATE routines.trajectories SET created_at = now()")
    async with temporal_working(database.url, temporal):
        await until(connection, "SELECT count(*) = 2 AND bool_and(ended_at IS NOT NULL) FROM routines.trajectories")
    ends = "SELECT jsonb_agg(jsonb_build_array(trigger, status, engine) ORDER BY id) FROM routines.trajectories"
    assert await value(connection, ends) == [["schedule", "failed", "temporal"], ["retry", "failed", "temporal"]]
    said = "SELECT array_agg(outputs ->> 'text') FROM routines.steps WHERE name = 'say'"
    assert await value(connection, said) == ["2026-05-04", "2026-05-04"]


async def test_every_kind_of_run_ends_with_the_same_status_error_and_records_on_both_engines(
    connection: Connection, database: Database, temporal: Client
) -> None:
    tasks = {name: await task_of(connection, name, workflow) for name, workflow in SCENARIOS.items()}
    async with working(database.url):
        without = await ends(connection, tasks)
    async with temporal_working(database.url, temporal):
        with_it = await ends(connection, tasks)
    assert with_it == without
    assert without["retried"][0] == ("completed", None)
    assert without["in_vain"][0] == ("failed", "step 'try' failed: no luck with it, try 3")
    engines = "SELECT array_agg(DISTINCT engine ORDER BY engine) FROM routines.trajectories"
    assert await value(connection, engines) == ["postgres", "temporal"]
    assert await value(connection, "SELECT count(*) FROM routines.dispatches") == 0


async def test_a_run_is_traced_as_on_the_postgres_engine(
    connection: Connection, database: Database, temporal: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = {name: await task_of(connection, name, SCENARIOS[name]) for name in ("retried", "in_vain")}
    seen: list[dict[str, list[tuple[object, ...]]]] = []
    for engine in (working(database.url), temporal_working(database.url, temporal)):
        exporter = InMemorySpanExporter()
        tracer = OtelTracer("worker", exporter)
        monkeypatch.setattr(tracing, "_tracer", tracer)
        async with engine:
            made = {await run_of(connection, task): name for name, task in tasks.items()}
            ids = {(await run_id_of(connection, run)).replace("-", ""): name for run, name in made.items()}
            for run in made:
                await until_ended(connection, run)
        monkeypatch.setattr(tracing, "_tracer", None)
        tracer.close()
        found: dict[str, list[tuple[object, ...]]] = {name: [] for name in tasks}
        for span in exporter.get_finished_spans():
            name = ids[format(span.context.trace_id, "032x")]
            kept = {key: span.attributes[key] for key in span.attributes if key.rpartition(".")[2] in COMPARED}
            events = [event.name for event in span.events]
            found[name].append((span.name, span.parent is not None, span.status.status_code, kept, events))
        seen.append(found)
    on_postgres, on_temporal = seen
    assert on_temporal == on_postgres
    assert [span[0] for span in on_postgres["retried"]] == ["step try", "step then", "run my-org-retried"]
    assert [span[2] for span in on_postgres["in_vain"]] == [StatusCode.ERROR, StatusCode.ERROR]


LIMITED: dict[str, tuple[dict[str, Any], str]] = {
    "bytes": (
        workflow_of(("a", {"activity": "text_echo", "text": "x" * 1000}), ("b", ECHO)),
        "more than its limit run_step_bytes of 2000",
    ),
    "steps": (
        workflow_of(("a", ECHO), ("b", ECHO), ("c", ECHO)),
        "would have 3 steps, more than its limit run_steps of 2",
    ),
    "log": (
        workflow_of(("try", {"activity": "stumble", "name": "it", "times": 9, "retry": {**RETRY, "max_attempts": 9}})),
        "would have 9 events, more than its limit run_log_events of 8",
    ),
    "children": (
        workflow_of(("emit", {"activity": "list_emit_await", "task": "one", "items": ["a", "b"]})),
        "the run's tree is at its limit run_children: it has 1 of 1 runs",
    ),
}  # fmt: skip


async def test_the_limits_of_a_run_apply_in_the_same_way_on_both_engines(
    connection: Connection, database: Database, temporal: Client
) -> None:
    await task_of(connection, "one", workflow_of(("a", ECHO), item=""))
    tasks = {name: await task_of(connection, name, workflow) for name, (workflow, _) in LIMITED.items()}
    values: dict[str, int | None] = {"run_step_bytes": 2000, "run_steps": 2, "run_log_events": 8, "run_children": 1}
    collection_id = await limits.find_collection(connection, "my-org")
    await limits.replace_limits(connection, values, collection_id=collection_id)
    found: list[dict[str, Any]] = []
    for program in (working(database.url), temporal_working(database.url, temporal)):
        async with program:
            made = {name: await run_of(connection, task) for name, task in tasks.items()}
            found.append({name: await until_ended(connection, run) for name, run in made.items()})
    assert found[0] == found[1]
    for name, (_, cause) in LIMITED.items():
        status, error = found[0][name]
        assert (status, cause in error) == ("failed", True), error
    await limits.replace_limits(connection, dict.fromkeys(values), collection_id=collection_id)
    async with temporal_working(database.url, temporal):
        again = [await run_of(connection, tasks[name]) for name in ("bytes", "steps", "children")]
        assert [await until_ended(connection, run) for run in again] == [("completed", None)] * 3


async def test_large_outputs_are_kept_in_a_file_on_temporal_too(
    connection: Connection, database: Database, temporal: Client, tmp_path: Path
) -> None:
    @activity("Returns a long text.", Named)
    async def unfold(given: Named, _: StepContext) -> Value:
        return Value(["short", "x" * given.times])

    steps = (
        ("load", {"activity": "unfold", "times": 2_000_000}),
        ("echo", {"activity": "text_echo", "text_path": "load.outputs.value[0]"}),
    )
    run = await run_of(connection, await task_of(connection, "t", workflow_of(*steps)))
    async with temporal_working(database.url, temporal, data_dir=tmp_path):
        assert await until_ended(connection, run) == ("completed", None)
    outputs = "SELECT outputs FROM routines.steps WHERE name = %s"
    assert await value(connection, outputs, "echo") == {"text": "short"}
    reference = await value(connection, outputs, "load")
    assert isinstance(reference, dict)
    assert (tmp_path / "files" / "1" / reference["file_path"]).stat().st_size == reference["bytes"]


async def test_temporal_shows_completed_and_failed_runs_as_such(
    connection: Connection, database: Database, temporal: Client
) -> None:
    good = await run_of(connection, await task_of(connection, "good", workflow_of(("one", ECHO))))
    bad = await run_of(connection, await task_of(connection, "bad", workflow_of(("one", {"activity": "no"}))))
    async with temporal_working(database.url, temporal):
        assert await until_ended(connection, good) == ("completed", None)
        assert await until_ended(connection, bad) == ("failed", "step 'one' failed: unknown activity 'no'")
        assert (
            await temporal.get_workflow_handle(await temporal_id_of(connection, good, "good")).result() == "completed"
        )
        with pytest.raises(WorkflowFailureError):
            await temporal.get_workflow_handle(await temporal_id_of(connection, bad, "bad")).result()


async def test_a_temporal_worker_counts_runs_and_steps_as_a_postgres_worker_does(
    connection: Connection, database: Database, temporal: Client
) -> None:
    tasks = [await task_of(connection, name, SCENARIOS[name]) for name in ("references", "retried", "unknown")]
    names = ["claimed_total", "run_duration_seconds_count", "steps_total"]
    counted: list[dict[Any, float]] = []
    for program in (working(database.url), temporal_working(database.url, temporal)):
        async with program as worker:
            for task in tasks:
                await until_ended(connection, await run_of(connection, task))
            health = await worker.metrics.health()
        assert health.is_good
        samples = (sample for family in worker.metrics.registry.collect() for sample in family.samples)
        counted.append({
            (sample.name, *sorted(sample.labels.items())): sample.value
            for sample in samples
            if sample.name.removeprefix("routines_worker_") in names
        })  # fmt: skip
    without, with_it = counted
    assert with_it == without
    assert without["routines_worker_claimed_total",] == 3


async def test_a_run_continues_in_a_new_history_once_its_own_has_grown_long(
    connection: Connection, database: Database, temporal: Client
) -> None:
    retried = {"activity": "stumble_and_work", "times": 4, "retry": {"max_attempts": 9, "backoff": 1.1}}
    run = await run_of(connection, await task_of(connection, "long", workflow_of(("one", ECHO), ("two", retried))))
    async with temporal_working(database.url, temporal, stumbling_pool()):
        assert await until_ended(connection, run) == ("completed", None)
        handle = temporal.get_workflow_handle(await temporal_id_of(connection, run, "long"))
        assert await handle.result() == "completed"
        history = await handle.fetch_history()
    begun = history.events[0].workflow_execution_started_event_attributes
    assert begun.continued_execution_run_id
    # The reconciler still recognizes it by its memo.
    assert (await (await handle.describe()).memo())["generation"] == 1
    assert await value(connection, "SELECT attempt FROM routines.steps WHERE name = 'two'") == 5
    assert await value(connection, "SELECT crashes FROM routines.trajectories") == 0


@pytest.mark.parametrize(("seconds", "most_events"), [(0, 6), (2, 12)])
async def test_a_run_of_three_steps_takes_few_events(
    connection: Connection, database: Database, temporal: Client, seconds: float, most_events: int
) -> None:
    """Six if it is quick, and twelve if it takes so long that its worker has to send heartbeats."""
    step = {"activity": "stumble_and_work", "seconds": seconds}
    run = await run_of(
        connection, await task_of(connection, "t", workflow_of(("one", ECHO), ("two", step), ("three", ECHO)))
    )
    async with temporal_working(database.url, temporal, stumbling_pool()):
        assert await until_ended(connection, run) == ("completed", None)
        handle = temporal.get_workflow_handle(await temporal_id_of(connection, run, "t"))
        assert await handle.result() == "completed"
        history = await handle.fetch_history()
    assert len(history.events) == most_events


async def test_a_worker_dispatches_no_more_runs_than_it_can_execute(
    connection: Connection, database: Database, temporal: Client, activities: dict[str, int]
) -> None:
    task = await task_of(connection, "t", workflow_of(("wait", {"activity": "linger", "name": "t"})))
    for _ in range(30):
        await run_of(connection, task)
    dispatched = "SELECT count(*) FROM routines.dispatches"
    async with temporal_working(database.url, temporal, worker_concurrency=7):
        await until(connection, f"{dispatched} WHERE sequence > 0 HAVING count(*) = 7")
        await asyncio.sleep(1)  # in which it would dispatch more
        assert await value(connection, dispatched) == 7
        assert activities["t"] == 7
        await connection.execute(CANCEL_ALL, [3])
        await until(connection, "SELECT count(*) = 10 FROM routines.trajectories WHERE status <> 'pending'")
        await connection.execute(CANCEL_ALL, [30])
        await until(connection, "SELECT count(*) = 0 FROM routines.dispatches")


CANCEL_ALL = """UPDATE routines.trajectories SET status = 'cancelled', fence = fence + 1, ended_at = now(),
                lease_expires_at = NULL
                WHERE id IN (SELECT id FROM routines.trajectories WHERE ended_at IS NULL ORDER BY id LIMIT %s)"""


async def until_lingering(calls: dict[str, int], name: str) -> None:
    async with asyncio.timeout(30):
        while name not in calls:  # noqa: ASYNC110 - the step runs in a worker
            await asyncio.sleep(0.01)


async def lingering(connection: Connection, name: str = "wait") -> tuple[int, str]:
    """Create a run that waits. Returns its id and its id in Temporal."""
    task = await task_of(connection, name, workflow_of(("wait", {"activity": "linger", "name": name}), ("then", ECHO)))
    run = await run_of(connection, task)
    return run, await temporal_id_of(connection, run, name)


async def until_closed(temporal: Client, temporal_id: str) -> WorkflowExecutionStatus | None:
    """Wait for the workflow to end in Temporal. Returns its status there."""
    async with asyncio.timeout(30):
        while True:
            status = (await temporal.get_workflow_handle(temporal_id).describe()).status
            if status != WorkflowExecutionStatus.RUNNING:
                return status
            await asyncio.sleep(0.05)


CANCEL = """UPDATE routines.trajectories SET status = 'cancelled', fence = fence + 1, ended_at = now(),
            lease_expires_at = NULL WHERE id = %s"""


async def test_a_cancel_by_the_api_stops_the_step_and_the_workflow(
    connection: Connection, database: Database, temporal: Client, activities: dict[str, int]
) -> None:
    run, temporal_id = await lingering(connection)
    async with temporal_working(database.url, temporal):
        await until_lingering(activities, "wait")
        await connection.execute(CANCEL, [run])
        assert await until_closed(temporal, temporal_id) == WorkflowExecutionStatus.CANCELED
        await until_lingering(activities, "wait was stopped")
        await until(connection, "SELECT count(*) = 0 FROM routines.dispatches")
    assert await value(connection, "SELECT array_agg(name || ' ' || status) FROM routines.steps") == ["wait cancelled"]


async def test_a_later_slot_cancels_the_run_and_its_own_then_begins(
    connection: Connection, database: Database, temporal: Client, activities: dict[str, int]
) -> None:
    waits = {"activity": "linger", "name": "wait"}
    task = await task_of(connection, "replace", workflow_of(("wait", waits)))
    await make_routine(connection, task, at("2026-05-04 09:00"))
    await connection.execute("UPDATE routines.routines SET overlap_policy = 'cancel_other'")
    await tick(connection, batch_size=10, now=at("2026-05-04 09:00"), **CATCHUP)
    async with temporal_working(database.url, temporal):
        await until_lingering(activities, "wait")
        await tick(connection, batch_size=10, now=at("2026-05-05 09:00"), **CATCHUP)
        await until_lingering(activities, "wait was stopped")
        await until(
            connection, "SELECT count(*) = 2 AND count(*) FILTER (WHERE status = 'running') = 1 FROM routines.steps"
        )
        states = "SELECT array_agg(status || ' ' || place ORDER BY id) FROM routines.trajectories"
        assert await value(connection, states) == ["cancelled 1", "running 1"]


async def test_a_run_cancelled_in_temporal_ends_as_cancelled(
    connection: Connection, database: Database, temporal: Client, activities: dict[str, int]
) -> None:
    run, temporal_id = await lingering(connection)
    async with temporal_working(database.url, temporal):
        await until_lingering(activities, "wait")
        await temporal.get_workflow_handle(temporal_id).cancel()
        assert await until_ended(connection, run) == ("cancelled", "cancelled in Temporal")
        assert await until_closed(temporal, temporal_id) == WorkflowExecutionStatus.CANCELED
        await until_lingering(activities, "wait was stopped")
    assert await value(connection, "SELECT array_agg(name || ' ' || status) FROM routines.steps") == ["wait cancelled"]


async def test_a_run_past_its_deadline_fails_and_is_cancelled_in_temporal(
    connection: Connection, database: Database, temporal: Client, activities: dict[str, int]
) -> None:
    run, temporal_id = await lingering(connection)
    async with temporal_working(database.url, temporal, run_deadline_seconds=1):
        end = ("failed", "deadline exceeded: the run took longer than it may")
        assert await until_ended(connection, run) == end
        assert await until_closed(temporal, temporal_id) == WorkflowExecutionStatus.CANCELED
        await until_lingering(activities, "wait was stopped")


async def test_a_run_waits_for_its_children_with_capacity_for_one_run_and_a_limit_of_one(
    connection: Connection, database: Database, temporal: Client
) -> None:
    """Neither the capacity its step would take nor the limit of open runs keeps its children from running."""
    echo = workflow_of(("say", {"activity": "text_echo", "text_path": "init_params.item"}), item="x")
    await task_of(connection, "echo", echo)
    emit = {"activity": "list_emit_await", "items": ["a", "b", "c"], "task": "echo"}
    parent = await run_of(connection, await task_of(connection, "p", workflow_of(("emit", emit))))
    await connection.execute("UPDATE routines.collections SET max_concurrent_runs = 1")
    async with temporal_working(database.url, temporal, worker_concurrency=1, temporal_open_runs=1):
        assert await until_ended(connection, parent) == ("completed", None)
    results = await value(connection, "SELECT outputs -> 'results' FROM routines.steps WHERE name = 'emit'")
    assert results == [{"say": {"text": text}} for text in ("a", "b", "c")]
    assert await value(connection, "SELECT array_agg(DISTINCT engine) FROM routines.trajectories") == ["temporal"]


async def test_no_more_runs_are_dispatched_than_a_limit_allows(
    connection: Connection, database: Database, temporal: Client, activities: dict[str, int]
) -> None:
    first, _ = await lingering(connection)
    task = await value(connection, "SELECT task_id FROM routines.trajectories")
    second = await run_of(connection, int(str(task)))
    await connection.execute("UPDATE routines.tasks SET max_concurrent_runs = 1")
    other = await run_of(connection, await task_of(connection, "other", workflow_of(("one", ECHO))))
    async with temporal_working(database.url, temporal):
        await until_lingering(activities, "wait")
        assert await until_ended(connection, other) == ("completed", None)
        status = "SELECT status FROM routines.trajectories WHERE id = %s"
        assert await value(connection, status, second) == "pending"
        await connection.execute(CANCEL, [first])
        await until(connection, "SELECT status = 'running' FROM routines.trajectories WHERE id = %s", second)


async def test_a_rerun_executes_only_the_steps_that_it_does_not_keep(
    connection: Connection, database: Database, temporal: Client
) -> None:
    emit = {"activity": "text_echo", "text_path": "one.outputs.text"}
    task = await task_of(connection, "steps", workflow_of(("one", ECHO), ("two", emit)))
    first = await run_of(connection, task)
    async with temporal_working(database.url, temporal):
        assert await until_ended(connection, first) == ("completed", None)
        again = await value(
            connection,
            """INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, rerun_of, kept_steps,
                                                  init_params)
               SELECT collection_id, task_id, 1, 'rerun', id, jsonb_build_object('one', id), '{}'
               FROM routines.trajectories RETURNING id""",
        )
        assert isinstance(again, int)
        assert await until_ended(connection, again) == ("completed", None)
    steps = "SELECT array_agg(trajectory_id || name ORDER BY trajectory_id, position) FROM routines.steps"
    assert await value(connection, steps) == [f"{first}one", f"{first}two", f"{again}two"]
    assert await value(connection, "SELECT array_agg(DISTINCT engine) FROM routines.trajectories") == ["temporal"]


async def test_workers_of_one_engine_leave_the_runs_of_the_other_alone(
    connection: Connection, database: Database, temporal: Client, activities: dict[str, int]
) -> None:
    """A worker of one engine finds nothing to claim, reap or renew among the runs of the other."""
    run, _ = await lingering(connection)
    async with temporal_working(database.url, temporal):
        await until_lingering(activities, "wait")
        assert await runs.claim(connection, capacity=9, worker="w", lease_seconds=9, deadline_seconds=9) == []
        assert await runs.reap(connection) == []
        assert await value(connection, "SELECT lease_expires_at = 'infinity' FROM routines.trajectories")
        mine = await run_of(connection, await task_of(connection, "mine", workflow_of(("one", ECHO))))
        async with working(database.url):
            assert await until_ended(connection, mine) == ("completed", None)
        await connection.execute(CANCEL, [run])
    by_postgres = await run_of(connection, await task_of(connection, "by_postgres", workflow_of(("one", ECHO))))
    [claimed] = await runs.claim(connection, capacity=9, worker="w", lease_seconds=60, deadline_seconds=600)
    async with temporal_working(database.url, temporal):
        other = await run_of(connection, await task_of(connection, "theirs", workflow_of(("one", ECHO))))
        assert await until_ended(connection, other) == ("completed", None)
    state = "SELECT engine || ' ' || status || ' ' || fence FROM routines.trajectories WHERE id = %s"
    assert await value(connection, state, by_postgres) == f"postgres running {claimed.fence}"


async def test_a_worker_with_a_limit_of_zero_open_runs_finishes_those_it_has_and_claims_none(
    connection: Connection, database: Database, temporal: Client
) -> None:
    """This is how to switch back to the other engine: see docs/run/temporal.md."""
    slow = {"activity": "stumble", "name": "it", "times": 1, "retry": {"max_attempts": 2, "backoff": 1}}
    first = await run_of(connection, await task_of(connection, "first", workflow_of(("one", slow))))
    async with temporal_working(database.url, temporal):
        await until(connection, "SELECT count(*) = 1 FROM routines.steps WHERE attempt = 2")
    second = await run_of(connection, await task_of(connection, "second", workflow_of(("one", ECHO))))
    async with temporal_working(database.url, temporal, temporal_open_runs=0):
        assert await until_ended(connection, first) == ("completed", None)
    assert await value(connection, "SELECT status FROM routines.trajectories WHERE id = %s", second) == "pending"
    assert await value(connection, "SELECT crashes FROM routines.trajectories WHERE id = %s", first) == 0
