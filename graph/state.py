"""The typed state that the lifespan gives to every request."""

import secrets
from contextvars import ContextVar
from typing import TypedDict, cast

from starlette.requests import HTTPConnection
from starlette.types import Scope

from services.runtime import Runtime

correlation_id: ContextVar[str] = ContextVar("correlation_id", default="-")
"""The id of the current request; `-` outside of requests."""

client_address: ContextVar[str | None] = ContextVar("client_address", default=None)
"""The address of its client, for the audit trail; None outside of requests."""


trace_parent: ContextVar[str | None] = ContextVar("trace_parent", default=None)
"""The header `traceparent` of the request (W3C Trace Context), if it is valid."""


def new_correlation_id() -> str:
    """Make an id of 16 hex digits. It is never taken from the request, because it is logged."""
    return secrets.token_hex(8)


class State(TypedDict):
    """The content of `request.state`."""

    runtime: Runtime


def runtime_of(connection: HTTPConnection) -> Runtime:
    """Return the services that this request may use."""
    return runtime_in(connection.scope)


def runtime_in(scope: Scope) -> Runtime:
    """Return the services that a request may use, by its scope alone."""
    return cast(Runtime, scope["state"]["runtime"])
