"""Traces: API → run → step → webhook, and the tick that a scheduled run is linked to.

Nothing is traced unless OTEL_EXPORTER_OTLP_ENDPOINT is set and the extra `otel` is installed. `tracer()` is None then.

The ids of a run's spans are derived from its run_id. So the spans of a run find each other across claims, workers and
step processes, although each of them is recorded where it happens.
"""

import hashlib
import os
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Literal, NamedTuple, Protocol

import structlog

from routines_core.distribution import how_to_install

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Traces are sent if one of these variables is set. OpenTelemetry's SDK reads them, and the other OTEL_ variables."""

Kind = Literal["internal", "server", "client", "consumer"]
Attributes = Mapping[str, str | int | float | bool]

_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_SAMPLED = 1

log = structlog.get_logger("tracing")


class SpanRef(NamedTuple):
    """A span, as other spans refer to it.

    Attributes:
        trace_id: 32 hexadecimal digits.
        span_id: 16 hexadecimal digits.
        is_sampled: Whether it is recorded.
    """

    trace_id: str
    span_id: str
    is_sampled: bool = True

    @property
    def traceparent(self) -> str:
        """The header that names this span as the parent. Source: W3C Trace Context."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.is_sampled):02x}"


class Span(Protocol):
    """A span that has begun. It is dropped unless it is ended."""

    @property
    def ref(self) -> SpanRef:
        """What other spans refer to it by."""
        ...

    def event(self, name: str, attributes: Attributes) -> None:
        """Note that something happened now."""
        ...

    def end(self, attributes: Attributes, *, is_failure: bool = False, name: str | None = None) -> None:
        """Record it, under another name if one is given."""
        ...


class Tracer(Protocol):
    """Records spans and sends them."""

    def begin(
        self,
        name: str,
        kind: Kind = "internal",
        *,
        parent: SpanRef | None = None,
        ids: tuple[str | None, str] | None = None,
        link: SpanRef | None = None,
        began_at: float | None = None,
    ) -> Span:
        """Begin a span.

        Args:
            name: Its name.
            kind: Its place between processes.
            parent: Its parent; None: it begins a trace.
            ids: The ids of its trace, if it begins one, and of the span; None: random ones.
            link: Another span that it has to do with.
            began_at: When it began, in Unix seconds; None: now.
        """
        ...

    def close(self) -> None:
        """Send what is left, for at most a moment."""
        ...


_tracer: Tracer | None = None


def tracer() -> Tracer | None:
    """Return the process's tracer; None if nothing is traced."""
    return _tracer


def parse_traceparent(header: str | None) -> SpanRef | None:
    """Return the span that a traceparent header names; None if it is missing or malformed."""
    found = _TRACEPARENT.fullmatch(header or "")
    return SpanRef(found[1], found[2], bool(int(found[3], 16) & _SAMPLED)) if found else None


def begin_run(
    tracer: Tracer,
    run_id: str,
    parent: SpanRef | None,
    *,
    name: str = "run",
    link: SpanRef | None = None,
    began_at: float | None = None,
) -> Span:
    """Begin the span of a run. Its ids, and whether it is sampled, do not depend on who begins it.

    Without a parent it begins a trace, whose id is the run_id.
    """
    digits = run_id.replace("-", "")
    return tracer.begin(name, "consumer", parent=parent, ids=(digits, digits[16:]), link=link, began_at=began_at)


def step_ref(run: SpanRef, run_id: str, step: str) -> SpanRef:
    """Return the span of a run's step, the same for all of its attempts."""
    return run._replace(span_id=hashlib.blake2b(f"{run_id}/{step}".encode(), digest_size=8).hexdigest())


def is_wanted() -> bool:
    """Return whether the environment asks for traces."""
    is_off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return not is_off and any(os.environ.get(name) for name in ENDPOINTS)


@contextmanager
def tracing(program: str) -> Generator[None]:
    """Send traces of this program within the block, if the environment asks for them."""
    global _tracer  # noqa: PLW0603 - one per process, like the configuration of logging
    if not is_wanted():
        yield
        return
    try:
        from routines_core.otel import open_tracer
    except ImportError:
        log.warning("no traces are sent", reason="the extra otel is missing", remedy=how_to_install("otel"))
        yield
        return
    _tracer = open_tracer(program)
    try:
        yield
    finally:
        _tracer, closing = None, _tracer
        closing.close()
