"""The typed state that the lifespan yields to every request."""

import secrets
from contextvars import ContextVar
from typing import TypedDict, cast

from starlette.requests import HTTPConnection
from starlette.types import Scope

from services.runtime import Runtime

correlation_id: ContextVar[str] = ContextVar("correlation_id", default="-")
"""The id of the request that is being answered; `-` outside of requests."""

client_address: ContextVar[str | None] = ContextVar("client_address", default=None)
"""The peer of its connection, for the audit trail; None outside of requests."""


trace_parent: ContextVar[str | None] = ContextVar("trace_parent", default=None)
"""The header `traceparent` of the request (W3C Trace Context), when it has a valid one."""


def new_correlation_id() -> str:
    """Make an id: 16 hex digits. Never taken from the request: it ends in the log."""
    return secrets.token_hex(8)


class State(TypedDict):
    """What `request.state` holds."""

    runtime: Runtime


def runtime_of(connection: HTTPConnection) -> Runtime:
    """Return the services that this request may use."""
    return runtime_in(connection.scope)


def runtime_in(scope: Scope) -> Runtime:
    """Return the services that a request may use, by its scope alone."""
    return cast(Runtime, scope["state"]["runtime"])
