"""The typed state that the lifespan yields to every request."""

from typing import TypedDict, cast

from starlette.requests import HTTPConnection

from services.runtime import Runtime


class State(TypedDict):
    """What `request.state` holds."""

    runtime: Runtime


def runtime_of(connection: HTTPConnection) -> Runtime:
    """Return the services that this request may use."""
    return cast(Runtime, connection.state.runtime)
