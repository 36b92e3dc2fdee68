"""Structured logs on stderr. They carry ids and counts, never bodies, secrets, tokens or bind values.

Library logs and uncaught errors go through here too, without their values: the text of an error may contain a database
row or something that a client sent.
"""

import asyncio
import logging
import sys
import threading
import traceback
from pathlib import Path
from types import TracebackType
from typing import cast

import structlog


def configure_logging(log_format: str) -> None:
    """Configure structlog for this process; `log_format` is `console` or `json`."""
    renderer = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
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
        Its type, where it was raised and, for a database error, the SQLSTATE and the constraint.
    """
    error = _first(error)
    facts = {"error": type(error).__name__}
    if frames := traceback.extract_tb(error.__traceback__)[-1:]:
        facts["at"] = f"{Path(frames[0].filename).name}:{frames[0].lineno}"
    if sqlstate := getattr(error, "sqlstate", None):
        facts["sqlstate"] = str(sqlstate)
    if constraint := getattr(getattr(error, "diag", None), "constraint_name", None):
        facts["constraint"] = str(constraint)
    return facts


def _first(error: BaseException) -> BaseException:
    """Return the first error of a group, or the error itself if it is not a group."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    return _first(cast("BaseExceptionGroup[BaseException]", error).exceptions[0])


class _Reduced(logging.Handler):
    """Logs the unformatted message of a library and the types of its errors, without any values."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass the record on to structlog."""
        message = str(record.msg).partition("\n")[0] if isinstance(record.msg, str) else type(record.msg).__name__
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
