"""The typed state that the lifespan yields to every request."""

from typing import TypedDict, cast

from starlette.requests import HTTPConnection
from starlette.types import Scope

from services.runtime import Runtime


class State(TypedDict):
    """What `request.state` holds."""

    runtime: Runtime


def runtime_of(connection: HTTPConnection) -> Runtime:
    """Return the services that this request may use."""
    return runtime_in(connection.scope)


def runtime_in(scope: Scope) -> Runtime:
    """Return the services that a request may use, by its scope alone."""
    return cast(Runtime, scope["state"]["runtime"])
