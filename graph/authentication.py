"""Who sent a request."""

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import HTTPConnection

from graph.state import runtime_of
from services.auth.roles import Principal
from services.runtime import Runtime

Identify = Callable[[], Awaitable[Principal | None]]
"""Tells who it is now; None when it is nobody, or nobody any more."""

_INIT_KEYS = ("Authorization", "authorization", "authToken")
"""Where clients put the credential into `connection_init`; the last one without `Bearer`."""


async def principal_of(connection: HTTPConnection) -> Principal | None:
    """Identify the sender of a request by its `Authorization` header.

    Args:
        connection: A request or a WebSocket's handshake.

    Returns:
        None without credentials and with ones that nobody issued.
    """
    authenticator = runtime_of(connection).authenticator
    return await authenticator.authenticate(connection.headers.get("authorization"))


async def principal_of_connection_params(
    runtime: Runtime, params: Mapping[str, object]
) -> Principal | None:
    """Identify a WebSocket by the payload of its `connection_init`.

    Args:
        runtime: The services.
        params: The payload: `Authorization` as the header would be, or `authToken` with the token.

    Returns:
        None without credentials and with ones that nobody issued.
    """
    found = next((params[key] for key in _INIT_KEYS if isinstance(params.get(key), str)), None)
    if isinstance(found, str) and not found.lower().startswith("bearer "):
        found = f"Bearer {found}"
    return await runtime.authenticator.authenticate(found if isinstance(found, str) else None)


async def principal_of_websocket(
    runtime: Runtime, params: Mapping[str, object], of_handshake: Identify
) -> Principal | None:
    """Identify a WebSocket by the payload of its `connection_init`, else by its handshake.

    Args:
        runtime: The services.
        params: The payload.
        of_handshake: Identifies by the handshake's header.

    Returns:
        None without credentials, and when nobody issued them or they are valid no more.
    """
    return await principal_of_connection_params(runtime, params) or await of_handshake()
