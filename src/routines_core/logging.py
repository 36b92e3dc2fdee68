"""Structured logs on stderr. They carry ids and counts, never bodies, secrets, tokens or bind values.

Library logs and uncaught errors go through here too, without their values: the text of an error may contain a database
row or something that a client sent.
"""

import asyncio
import logging
import re
import sys
import threading
import traceback
from pathlib import Path
from types import TracebackType
from typing import TextIO, cast

import structlog

from routines_core.diagnosis import diagnose, first_of
from routines_core.log_stream import LogStream


def configure_logging(log_format: str) -> None:
    """Configure structlog for this process; `log_format` is `console` or `json`."""
    stream = sys.stderr if isinstance(sys.stderr, LogStream) else LogStream(sys.stderr)
    renderer = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=stream.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", stream)),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_Reduced()], level=logging.WARNING, force=True)


def reduce_tracebacks() -> None:
    """Print uncaught errors of the process and its threads without their texts."""
    sys.excepthook = _print_reduced
    threading.excepthook = lambda arguments: _print_reduced(
        arguments.exc_type, arguments.exc_value, arguments.exc_traceback
    )


def describe(error: BaseException) -> dict[str, str]:
    """Describe an error by facts that are safe to log.

    Returns:
        Its type, where it was raised and, for a database error, the SQLSTATE and the constraint. If an operator can do
        something about it, also the cause, the object it is about, and the remedy.
    """
    error = first_of(error)
    facts = {"error": type(error).__name__}
    if frames := traceback.extract_tb(error.__traceback__)[-1:]:
        facts["at"] = f"{Path(frames[0].filename).name}:{frames[0].lineno}"
    if sqlstate := getattr(error, "sqlstate", None):
        facts["sqlstate"] = str(sqlstate)
    if constraint := getattr(getattr(error, "diag", None), "constraint_name", None):
        facts["constraint"] = str(constraint)
    return facts | diagnose(error).facts


_PLACEHOLDER = re.compile(r"%(\(\w+\))?[-#0 +]*[\d*]*(\.[\d*]+)?[hlL]?[diouxXeEfFgGcrsa]")
"""A placeholder of a format string. The values are left out, since they may be anything."""


class _Reduced(logging.Handler):
    """Logs the message of a library with its values left out, and describes its errors."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass the record on to structlog."""
        text = record.msg.partition("\n")[0] if isinstance(record.msg, str) else type(record.msg).__name__
        message = _PLACEHOLDER.sub("…", text).replace("%%", "%") if record.args else text
        structlog.get_logger(record.name).log(record.levelno, message, library=record.name, **_error_of(record))


def _error_of(record: logging.LogRecord) -> dict[str, str]:
    if record.exc_info and record.exc_info[1]:
        return describe(record.exc_info[1])
    values = cast("tuple[object, ...]", record.args if isinstance(record.args, tuple) else ())
    error = next((value for value in values if isinstance(value, BaseException)), None)
    return describe(error) if error else {}


def _print_reduced(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt | asyncio.CancelledError) or error is None:
        sys.__excepthook__(kind, error or kind(), trace)
        return
    lines = ["Traceback, without the error's text, which may contain user data:\n", *traceback.format_tb(trace)]
    facts = ", ".join(f"{name}: {text}" for name, text in describe(error).items())
    sys.stderr.write("".join(lines) + facts + "\n")
