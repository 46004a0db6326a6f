"""The correlation id of a request: in its answer's header, in the log, in masked errors."""

import secrets
from contextvars import ContextVar

correlation_id: ContextVar[str] = ContextVar("correlation_id", default="-")
"""The id of the request that is being answered; `-` outside of requests."""


def new_correlation_id() -> str:
    """Make an id: 16 hex digits. Never taken from the request: it ends in the log."""
    return secrets.token_hex(8)
