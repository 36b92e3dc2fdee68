"""Structured logs on stderr. They carry ids and counts: never bodies, secrets, tokens or bind values.

What libraries log, and errors that nobody caught, come out here too, reduced to what is no secret: the text of an error
may hold a row of the database or what somebody sent.
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
    """Set up structlog for this process; `log_format` is `console` or `json`."""
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
    """Have errors that nobody caught end a process or a thread without their texts."""
    sys.excepthook = _print_reduced
    threading.excepthook = lambda arguments: _print_reduced(
        arguments.exc_type, arguments.exc_value, arguments.exc_traceback
    )


def describe(error: BaseException) -> dict[str, str]:
    """What a log may say of an error: its kind, where it was raised and, of the database's, code and constraint."""
    error = _first(error)
    said = {"error": type(error).__name__}
    if place := traceback.extract_tb(error.__traceback__)[-1:]:
        said["at"] = f"{Path(place[0].filename).name}:{place[0].lineno}"
    if sqlstate := getattr(error, "sqlstate", None):
        said["sqlstate"] = str(sqlstate)
    if constraint := getattr(getattr(error, "diag", None), "constraint_name", None):
        said["constraint"] = str(constraint)
    return said


def _first(error: BaseException) -> BaseException:
    """The first error of a group; any other as it is."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    return _first(cast("BaseExceptionGroup[BaseException]", error).exceptions[0])


class _Reduced(logging.Handler):
    """What libraries log: the words that stand in their code, and the kinds of the errors, without any value."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass it on to structlog."""
        said = str(record.msg).partition("\n")[0] if isinstance(record.msg, str) else type(record.msg).__name__
        structlog.get_logger(record.name).log(record.levelno, said, library=record.name, **_error_of(record))


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
    lines = ["Traceback, without the error's text, which may hold what people sent:\n", *traceback.format_tb(trace)]
    said = ", ".join(f"{name}: {text}" for name, text in describe(error).items())
    sys.stderr.write("".join(lines) + said + "\n")
