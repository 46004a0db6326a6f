"""Logging of the server process, with correlation ids, and without loggers that log patient data.

A line is text, or with `LOG_FORMAT=json` a JSON object for a log collector.
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
"""Loggers that log whole URLs, commands or headers at INFO or DEBUG: patient data, signatures."""

COMMAND_LOG_LEVEL = "WARNING"
"""Lowest level of commands other than `serve`, which print their progress and figures."""

_VALUES = r"pydicom\."
"""pydicom's warnings of invalid values, which quote the value: a name, a date, a UID."""


class _CorrelationFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.correlation_id = correlation_id.get()
        record.trace_parent = trace_parent.get()
        return True


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to the present `sys.stderr`, which a progress bar replaces to print lines above it."""

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, _: TextIO) -> None:
        """Stay with `sys.stderr`."""


class _DiscreetFormatter(logging.Formatter):
    """Leaves out the messages of foreign exceptions, which may quote documents and values."""

    def formatException(  # noqa: N802  # logging's name
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None]
        | tuple[None, None, None],
    ) -> str:
        return "" if ei[1] is None else "\n".join(_describe_exception(ei[1]))


class _JsonFormatter(_DiscreetFormatter):
    """Writes a line as a JSON object without absent values."""

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
    """Describe the class and the place of an exception, its causes first."""
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
        level: Name of the lowest level that is shown, such as `INFO`.
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
