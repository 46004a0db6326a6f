"""Logging of the server process: our lines with their correlation id, the talkative ones quiet."""

import logging
import warnings

from graph.correlation import correlation_id

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

_VALUES = r"pydicom\."
"""What pydicom says of a value that breaks a rule quotes the value: a name, a date, a UID."""


class _CorrelationFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.correlation_id = correlation_id.get()
        return True


def configure_logging(level: str) -> None:
    """Send the logs to stderr, one line each, with time, level, logger and correlation id.

    Args:
        level: Name of the lowest level that is shown, as `INFO`.
    """
    handler = logging.StreamHandler()
    handler.addFilter(_CorrelationFilter())
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)s %(name)s [%(correlation_id)s] %(message)s")
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=_VALUES)
