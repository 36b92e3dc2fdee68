"""Spans have the ids that make them one trace, and nothing is traced unless the environment asks for it."""

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Generator

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from routines_core.otel import CLOSE_SECONDS, OtelTracer
from routines_core.tracing import SpanRef, begin_run, is_wanted, parse_traceparent, step_ref, tracer, tracing

CLIENT = SpanRef("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
RUN_ID = "6f1c1f5e-8f0b-4d52-9a83-2a7a5e3f0c11"


@pytest.fixture(autouse=True)
def _without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


@pytest.fixture
def exporter() -> Generator[InMemorySpanExporter]:
    memory = InMemorySpanExporter()
    yield memory
    memory.shutdown()


@pytest.fixture
def traced(exporter: InMemorySpanExporter) -> OtelTracer:
    return OtelTracer("worker", exporter)


def finished(traced: OtelTracer, exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    traced.close()
    return list(exporter.get_finished_spans())


def test_a_traceparent_is_read_as_it_is_written() -> None:
    for ref in (CLIENT, CLIENT._replace(is_sampled=False)):
        assert parse_traceparent(ref.traceparent) == ref
    assert CLIENT.traceparent == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
    ],
)
def test_a_malformed_traceparent_begins_a_new_trace(header: str | None) -> None:
    assert parse_traceparent(header) is None


def test_a_run_without_a_traced_request_is_the_root_of_a_trace_with_its_run_id(
    traced: OtelTracer, exporter: InMemorySpanExporter
) -> None:
    begin_run(traced, RUN_ID, None, link=CLIENT).end({"routines.status": "completed"})
    [span] = finished(traced, exporter)
    assert span.parent is None
    assert f"{span.get_span_context().trace_id:032x}" == uuid.UUID(RUN_ID).hex
    assert [f"{link.context.span_id:016x}" for link in span.links] == [CLIENT.span_id]
    assert (span.kind, span.status.status_code) == (SpanKind.CONSUMER, StatusCode.UNSET)


def test_a_run_of_a_traced_request_is_a_child_of_it(traced: OtelTracer, exporter: InMemorySpanExporter) -> None:
    run = begin_run(traced, RUN_ID, CLIENT)
    step = traced.begin("step one", parent=run.ref, ids=(None, step_ref(run.ref, RUN_ID, "one").span_id))
    step.end({}, is_failure=True)
    run.end({})
    [child, parent] = finished(traced, exporter)
    assert parent.parent
    assert f"{parent.parent.span_id:016x}" == CLIENT.span_id
    assert child.parent
    assert child.parent.span_id == parent.get_span_context().span_id
    assert {f"{each.get_span_context().trace_id:032x}" for each in (child, parent)} == {CLIENT.trace_id}
    assert child.status.status_code == StatusCode.ERROR


def test_every_worker_gives_a_run_and_its_steps_the_same_ids(traced: OtelTracer) -> None:
    first, second = (begin_run(traced, RUN_ID, CLIENT).ref for _ in range(2))
    assert first == second
    steps = {step_ref(first, RUN_ID, name) for name in ("one", "two")} | {step_ref(second, RUN_ID, "one")}
    assert len(steps) == 2
    assert {step.trace_id for step in steps} == {CLIENT.trace_id}
    other = begin_run(traced, str(uuid.uuid4()), CLIENT).ref
    assert other.span_id != first.span_id


def test_other_spans_get_random_ids(traced: OtelTracer) -> None:
    begin_run(traced, RUN_ID, None)
    refs = {traced.begin("tick").ref for _ in range(3)}
    assert len({ref.trace_id for ref in refs} | {uuid.UUID(RUN_ID).hex}) == 4


def test_a_span_that_is_not_ended_is_not_sent(traced: OtelTracer, exporter: InMemorySpanExporter) -> None:
    traced.begin("tick")
    assert finished(traced, exporter) == []


def test_whether_a_run_is_sampled_is_the_same_for_all_of_its_spans(
    monkeypatch: pytest.MonkeyPatch, exporter: InMemorySpanExporter
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    workers = [OtelTracer("worker", exporter) for _ in range(2)]
    ids = [str(uuid.UUID(int=number << 64 | number * 2**56)) for number in range(1, 255)]
    decided = [[begin_run(worker, run_id, None).ref.is_sampled for run_id in ids] for worker in workers]
    assert decided[0] == decided[1]
    assert set(decided[0]) == {True, False}
    dropped = begin_run(workers[0], ids[decided[0].index(False)], None).ref
    assert dropped.traceparent.endswith("-00")
    assert not workers[0].begin("step one", parent=dropped).ref.is_sampled
    for worker in workers:
        worker.close()


def test_a_collector_that_does_not_answer_delays_the_end_of_a_program_by_a_second_at_most() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces"
        traced = OtelTracer("api", OTLPSpanExporter(endpoint=endpoint))
        traced.begin("GET").end({})
        began_at = time.monotonic()
        traced.close()
        assert time.monotonic() - began_at < CLOSE_SECONDS + 0.5


def test_a_service_has_the_name_of_its_program_unless_another_is_set(
    monkeypatch: pytest.MonkeyPatch, exporter: InMemorySpanExporter
) -> None:
    assert OtelTracer("ticker", exporter)._provider.resource.attributes["service.name"] == "routines-ticker"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    assert OtelTracer("ticker", exporter)._provider.resource.attributes["service.name"] == "mine"


def test_nothing_is_traced_without_an_endpoint() -> None:
    with tracing("api"):
        assert tracer() is None
    assert not is_wanted()


def test_an_endpoint_turns_tracing_on_for_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with tracing("api"):
        assert tracer() is not None
    assert tracer() is None
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with tracing("api"):
        assert tracer() is None


def test_without_an_endpoint_opentelemetry_is_not_even_imported() -> None:
    program = (
        "import sys; from routines_core.tracing import tracing\n"
        "import routines_api.app, routines_ticker.ticker, routines_engine.runs.worker\n"
        "with tracing('api'): pass\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_missing_extra_is_named_and_the_program_goes_on() -> None:
    program = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from routines_core.tracing import tracer, tracing\n"
        "with tracing('api'): print(tracer())"
    )
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert "None" in done.stdout
    assert "pip install 'routines-scheduler[otel]'" in done.stdout + done.stderr
