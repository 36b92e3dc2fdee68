"""Records spans with OpenTelemetry's SDK. Imported only where traces are sent, since the SDK is an extra."""

import os
import threading
from dataclasses import dataclass

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace import Span as SdkSpan
from opentelemetry.trace.propagation import set_span_in_context

from routines_core.distribution import installed_version
from routines_core.tracing import Attributes, Kind, SpanRef

CLOSE_SECONDS = 1.0
"""How long a stopping program waits until its last spans are sent."""
_KINDS = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "consumer": SpanKind.CONSUMER,
}
_NANOSECONDS = 1_000_000_000


class GivenIds(RandomIdGenerator):
    """Gives the next span the ids that were asked for. Used by one thread."""

    def __init__(self) -> None:
        self.trace_id: str | None = None
        self.span_id: str | None = None

    def generate_trace_id(self) -> int:
        """See IdGenerator."""
        return super().generate_trace_id() if self.trace_id is None else int(self.trace_id, 16)

    def generate_span_id(self) -> int:
        """See IdGenerator."""
        return super().generate_span_id() if self.span_id is None else int(self.span_id, 16)


@dataclass(frozen=True)
class OtelSpan:
    """See Span."""

    span: SdkSpan

    @property
    def ref(self) -> SpanRef:
        """See Span."""
        context = self.span.get_span_context()
        return SpanRef(f"{context.trace_id:032x}", f"{context.span_id:016x}", context.trace_flags.sampled)

    def event(self, name: str, attributes: Attributes) -> None:
        """See Span."""
        self.span.add_event(name, dict(attributes))

    def end(self, attributes: Attributes, *, is_failure: bool = False, name: str | None = None) -> None:
        """See Span. Without the text of an error, which may hold what a client sent."""
        self.span.set_attributes(dict(attributes))
        if name is not None:
            self.span.update_name(name)
        if is_failure:
            self.span.set_status(Status(StatusCode.ERROR))
        self.span.end()


class OtelTracer:
    """See Tracer.

    Args:
        program: api, ticker or worker.
        exporter: Sends the spans.
    """

    def __init__(self, program: str, exporter: SpanExporter) -> None:
        self._ids = GivenIds()
        self._provider = TracerProvider(resource=_resource(program), id_generator=self._ids, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("routines", installed_version())

    def begin(
        self,
        name: str,
        kind: Kind = "internal",
        *,
        parent: SpanRef | None = None,
        ids: tuple[str | None, str] | None = None,
        link: SpanRef | None = None,
        began_at: float | None = None,
    ) -> OtelSpan:
        """See Tracer."""
        self._ids.trace_id, self._ids.span_id = ids or (None, None)
        try:
            span = self._tracer.start_span(
                name,
                Context() if parent is None else set_span_in_context(NonRecordingSpan(_context(parent)), Context()),
                _KINDS[kind],
                links=None if link is None else [Link(_context(link))],
                start_time=None if began_at is None else int(began_at * _NANOSECONDS),
            )
        finally:
            self._ids.trace_id = self._ids.span_id = None
        return OtelSpan(span)

    def close(self) -> None:
        """See Tracer. A collector that does not answer must not keep a program from stopping."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)


def open_tracer(program: str) -> OtelTracer:
    """Return a tracer that sends spans where the OTEL_ variables say."""
    return OtelTracer(program, OTLPSpanExporter())


def _resource(program: str) -> Resource:
    attributes: dict[str, str] = {SERVICE_VERSION: installed_version()}
    given = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    if not os.environ.get("OTEL_SERVICE_NAME") and "service.name=" not in given:
        attributes[SERVICE_NAME] = f"routines-{program}"
    return Resource.create(dict(attributes))


def _context(ref: SpanRef) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if ref.is_sampled else TraceFlags.DEFAULT)
    return SpanContext(int(ref.trace_id, 16), int(ref.span_id, 16), is_remote=True, trace_flags=flags)
