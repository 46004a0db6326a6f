"""Logging of the server process: our lines with their correlation id, the talkative ones quiet.

A line is text for people, or with `LOG_FORMAT=json` a JSON object for a collector of logs.
"""

import logging
import sys
import traceback
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, TextIO

import orjson

from graph.state import correlation_id, trace_parent
from services.errors import Error

_QUIET = (
    "httpx",
    "httpcore",
    "pymongo",
    "uvicorn.access",
    "multipart",
    "python_multipart",
    "asyncio",
    "uvicorn.error",  # hands itself to websockets, which logs headers and messages at DEBUG
    "websockets",
)
"""These log whole URLs, commands or headers at INFO or DEBUG: patient data and signatures."""

COMMAND_LOG_LEVEL = "WARNING"
"""Least level of commands that end: the rest is in their progress and figures."""

_VALUES = r"pydicom\."
"""What pydicom says of a value that breaks a rule quotes the value: a name, a date, a UID."""


class _CorrelationFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.correlation_id = correlation_id.get()
        record.trace_parent = trace_parent.get()
        return True


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes where `sys.stderr` is now: a progress bar puts itself there and lines above it."""

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, _: TextIO) -> None:
        """Stay with `sys.stderr`."""


class _DiscreetFormatter(logging.Formatter):
    """Leaves out what foreign exceptions say: MongoDB's quote documents, Python's quote values."""

    def formatException(  # noqa: N802  # logging's name
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None]
        | tuple[None, None, None],
    ) -> str:
        return "" if ei[1] is None else "\n".join(_describe_exception(ei[1]))


class _JsonFormatter(_DiscreetFormatter):
    """Writes a line as a JSON object; what is absent is left out."""

    def format(self, record: logging.LogRecord) -> str:
        parent = getattr(record, "trace_parent", None)
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "correlationId": getattr(record, "correlation_id", "-"),
            "message": record.getMessage(),
        }
        if parent is not None:
            _, line["traceId"], line["parentSpanId"], _ = parent.split("-")
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def _describe_exception(exc: BaseException) -> Iterator[str]:
    """Describe where an exception was raised and of what kind it is, its causes first."""
    earlier = exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)
    if earlier is not None:
        yield from _describe_exception(earlier)
        yield "which led to:"
    if isinstance(exc, BaseExceptionGroup):
        for member in exc.exceptions:
            yield from _describe_exception(member)
    yield "".join(traceback.format_tb(exc.__traceback__)) + _named(exc)


def _named(exc: BaseException) -> str:
    kind = f"{type(exc).__module__}.{type(exc).__qualname__}".removeprefix("builtins.")
    match exc:
        case Error():
            return f"{kind}: {exc.message} {exc.detail}".rstrip()
        case OSError() if exc.strerror:
            return f"{kind}: {exc.strerror}"
    return kind


def configure_logging(level: str, log_format: Literal["text", "json"] = "text") -> None:
    """Send the logs to stderr, one line each, with time, level, logger and correlation id.

    Args:
        level: Name of the lowest level that is shown, as `INFO`.
        log_format: Of a line.
    """
    handler = _StderrHandler()
    handler.addFilter(_CorrelationFilter())
    formatter = _JsonFormatter if log_format == "json" else _DiscreetFormatter
    handler.setFormatter(
        formatter("%(asctime)s %(levelname)s %(name)s [%(correlation_id)s] %(message)s")
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("pydicom", "pynetdicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=_VALUES)
