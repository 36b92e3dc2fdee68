"""A trace leads from a request through the run and its steps to the webhook, across processes and to receivers."""

from collections.abc import Generator
from typing import Any, NamedTuple

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from support.endpoint import Asked, Endpoint, Said, serving
from support.service import Service, far_minute, wait_until

pytestmark = pytest.mark.slow

CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRET = "canary-of-a-header"


class Sent(NamedTuple):
    """A span as the collector has received it."""

    service: str
    span: Any

    @property
    def ids(self) -> tuple[str, str, str]:
        """Trace, span and parent."""
        return self.span.trace_id.hex(), self.span.span_id.hex(), self.span.parent_span_id.hex()

    def attribute(self, name: str) -> Any:
        for each in self.span.attributes:
            if each.key == name:
                return getattr(each.value, each.value.WhichOneof("value"))
        return None


class Traced(NamedTuple):
    """A running service that is traced, its collector, and the receiver of its requests."""

    service: Service
    collector: Endpoint
    receiver: Endpoint

    def sent(self) -> list[Sent]:
        found: list[Sent] = []
        for asked in [each for each in self.collector.asked if each.path == "/v1/traces"]:
            request = ExportTraceServiceRequest.FromString(asked.body)
            for resource in request.resource_spans:
                names = {each.key: each.value.string_value for each in resource.resource.attributes}
                found += [Sent(names["service.name"], span) for scope in resource.scope_spans for span in scope.spans]
        return found

    def one(self, name: str, trace_id: str | None = None) -> Sent:
        """Wait for the span of this name, in this trace."""

        def matching() -> list[Sent]:
            return [
                each for each in self.sent() if each.span.name == name and trace_id in {None, each.span.trace_id.hex()}
            ]

        wait_until(matching)
        [found] = matching()
        return found

    def asked(self, path: str) -> list[Asked]:
        return [each for each in self.receiver.asked if each.path == path]


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Generator[Traced]:
    with serving() as collector, serving() as receiver:
        service = Service(
            tmp_path_factory.mktemp("traced"),
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_EXPORTER_OTLP_HEADERS=f"authorization={SECRET}",
            OTEL_BSP_SCHEDULE_DELAY="100",
            ROUTINES_WEBHOOK_ALLOW_PRIVATE="true",
        )
        service.start()
        yield Traced(service, collector, receiver)
        service.stop()


def save_task(traced: Traced, name: str, step: dict[str, Any], **init_params: Any) -> None:
    workflow = {"init_params": init_params, "steps": ["call"], "step_configs": {"call": step}}
    with traced.service.client() as client:
        assert client.post("/tasks/demo/", json={"name": name, "workflow": workflow}).status_code == 201


def test_a_request_is_followed_to_the_step_that_it_starts_and_the_webhook_that_reports_it(traced: Traced) -> None:
    failures = iter([Said(503)])
    traced.receiver.answer = lambda asked: next(failures, Said()) if asked.path == "/step" else Said()
    retry = {"max_attempts": 2, "backoff": {"initial_seconds": 0.1}}
    save_task(traced, "call", {"activity": "http_request", "url": f"{traced.receiver.url}/step", "retry": retry})
    with traced.service.client() as client:
        given = {"webhook_url": f"{traced.receiver.url}/hook"}
        answer = client.post("/run/demo/call", json=given, headers={"traceparent": CLIENT})
        assert answer.status_code == 200
    _, client_trace, client_span, _ = CLIENT.split("-")
    request = traced.one("POST /api/v1/run/{collection}/{task}")
    run = traced.one("run demo-call")
    step = traced.one("step call")
    webhook = traced.one("webhook", client_trace)
    assert [each.service for each in (request, run, step, webhook)] == ["routines-api", *["routines-worker"] * 3]
    assert {each.ids[0] for each in (request, run, step, webhook)} == {client_trace}
    assert [each.ids[2] for each in (request, run, step, webhook)] == [
        client_span, request.ids[1], run.ids[1], run.ids[1]
    ]  # fmt: skip
    assert request.span.kind == Span.SPAN_KIND_SERVER
    assert request.attribute("http.response.status_code") == 200
    assert (step.attribute("routines.activity"), step.attribute("routines.attempt")) == ("http_request", 2)
    assert [event.name for event in step.span.events] == ["retry"]
    assert run.attribute("routines.trajectory_id") == answer.json()["trajectory_id"]
    assert run.attribute("routines.status") == "completed"
    assert run.span.start_time_unix_nano <= step.span.start_time_unix_nano
    assert step.span.end_time_unix_nano <= run.span.end_time_unix_nano
    # Receivers continue the trace: both attempts of the step, and the webhook.
    assert [each.headers["traceparent"] for each in traced.asked("/step")] == [
        f"00-{client_trace}-{step.ids[1]}-01"
    ] * 2
    [hook] = traced.asked("/hook")
    assert hook.headers["traceparent"] == f"00-{client_trace}-{webhook.ids[1]}-01"
    assert webhook.attribute("http.response.status_code") == 200


def test_a_scheduled_run_has_a_trace_of_its_own_that_is_linked_to_its_tick(traced: Traced) -> None:
    with traced.service.client() as client:
        cadence = {"type": "hourly", "minute_utc": far_minute()}
        made = client.post("/routines/demo/hello", json={"name": "traced", "cadence": cadence})
        assert made.status_code == 201
    traced.service.execute(
        "UPDATE routines.routines SET next_run_at = date_trunc('minute', now()) WHERE name = 'traced'"
    )
    wait_until(lambda: traced.service.execute(
        """SELECT 1 FROM routines.trajectories JOIN routines.routines ON routines.id = triggered_by_routine_id
           WHERE name = 'traced' AND status = 'completed'"""
    ))  # fmt: skip
    [(run_id,)] = traced.service.execute(
        """SELECT routines.run_id(trajectories.id, trajectories.created_at, nonce)::text FROM routines.trajectories
           JOIN routines.routines ON routines.id = triggered_by_routine_id WHERE name = 'traced'"""
    )
    trace_id = run_id.replace("-", "")
    run = traced.one("run demo-hello", trace_id)
    assert run.ids[2] == ""
    [link] = run.span.links
    tick = traced.one("tick", link.trace_id.hex())
    assert (tick.service, tick.ids[1]) == ("routines-ticker", link.span_id.hex())
    assert (tick.attribute("routines.claimed"), tick.attribute("routines.fired")) == (1, 1)


def test_a_run_that_a_step_starts_is_below_the_step(traced: Traced) -> None:
    save_task(traced, "child", {"activity": "text_echo", "text": "x"}, item=0)
    save_task(traced, "parent", {"activity": "list_emit_await", "task": "child", "items": [1]})
    with traced.service.client() as client:
        answer = client.post("/run-sync/demo/parent", json={})
        assert answer.json()["trajectory"]["status"] == "completed", answer.text
    parent, child = traced.one("run demo-parent"), traced.one("run demo-child")
    step = next(each for each in traced.sent() if each.ids[1] == child.ids[2])
    assert (step.span.name, step.ids[2]) == ("step call", parent.ids[1])


def test_a_run_that_fails_is_marked_and_no_error_is_quoted(traced: Traced) -> None:
    save_task(traced, "broken", {"activity": "http_request", "url": f"{traced.receiver.url}/missing?{SECRET}"})
    traced.receiver.answer = lambda _: Said(404, SECRET.encode())
    with traced.service.client() as client:
        client.post("/run-sync/demo/broken", json={})
    run = traced.one("run demo-broken")
    assert (run.span.status.code, run.span.status.message) == (Status.STATUS_CODE_ERROR, "")
    bodies = b"".join(each.body for each in traced.collector.asked)
    assert b"missing" not in bodies
    assert SECRET.encode() not in bodies


def test_polls_and_probes_are_not_recorded(traced: Traced) -> None:
    with traced.service.client() as client:
        client.get("/health")
        client.get("/tasks/demo/")
    traced.one("GET /api/v1/tasks/{collection}")
    routes = {each.attribute("http.route") for each in traced.sent()}
    assert not [route for route in routes if route and route.endswith("/health")]
