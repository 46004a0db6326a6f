"""Logging of the server process: our lines with their correlation id, the talkative ones quiet."""

import logging
import sys
import traceback
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import TextIO

from graph.state import correlation_id
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


def configure_logging(level: str) -> None:
    """Send the logs to stderr, one line each, with time, level, logger and correlation id.

    Args:
        level: Name of the lowest level that is shown, as `INFO`.
    """
    handler = _StderrHandler()
    handler.addFilter(_CorrelationFilter())
    handler.setFormatter(
        _DiscreetFormatter("%(asctime)s %(levelname)s %(name)s [%(correlation_id)s] %(message)s")
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("pydicom", "pynetdicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=_VALUES)
