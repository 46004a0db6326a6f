"""What belongs to the request that is being answered: its correlation id, and whose it is.

The id is in the answer's header, in the log, in masked errors and in the audit trail.
"""

import secrets
from contextvars import ContextVar

correlation_id: ContextVar[str] = ContextVar("correlation_id", default="-")
"""The id of the request that is being answered; `-` outside of requests."""

client_address: ContextVar[str | None] = ContextVar("client_address", default=None)
"""The peer of its connection, for the audit trail; None outside of requests."""


def new_correlation_id() -> str:
    """Make an id: 16 hex digits. Never taken from the request: it ends in the log."""
    return secrets.token_hex(8)
