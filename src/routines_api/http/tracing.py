"""The span of a request. It continues the trace of the client if that sent a traceparent header."""

from typing import Any

from routines_api.http.access import Caller
from routines_console.site import MOUNT
from routines_core import tracing

SPAN = "routines.span"
"""Key of the span in the scope of its request; missing if nothing is traced."""
_ERROR = 500
_NOT_TRACED = {"/api/v1/health", "/livez", "/readyz", "/metrics"}
"""Paths that machines ask for all the time."""


def begin_span(scope: Any) -> None:
    """Begin the span of a request, if anything is traced."""
    tracer = tracing.tracer()
    if tracer is None or scope["path"] in _NOT_TRACED or scope["path"].startswith(MOUNT):
        return
    given = next((value for name, value in scope["headers"] if name == b"traceparent"), b"")
    parent = tracing.parse_traceparent(given.decode("latin-1"))
    scope[SPAN] = tracer.begin(scope["method"], "server", parent=parent)


def end_span(scope: Any, status: int | None) -> None:
    """Record the span of a request; `status` is None if it ended without an answer."""
    span = scope.get(SPAN)
    if span is None:
        return
    attributes: dict[str, str | int] = {"http.request.method": scope["method"]}
    route = scope.get("path_template")
    if route:
        attributes["http.route"] = route
    if status is not None:
        attributes["http.response.status_code"] = status
    span.end(
        attributes, is_failure=status is None or status >= _ERROR, name=f"{scope['method']} {route}" if route else None
    )


def traceparent_of(caller: Caller) -> str | None:
    """Return the span of the caller's request; None if nothing is traced."""
    scope: Any = caller.request.scope
    return scope[SPAN].ref.traceparent if SPAN in scope else None
