"""Identifies the sender of a request."""

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import HTTPConnection

from graph.state import client_address, correlation_id, runtime_of
from services.audit import Action, AuditEvent
from services.auth.roles import Principal
from services.errors import NotFound
from services.runtime import Runtime

Identify = Callable[[], Awaitable[Principal | None]]
"""Returns the current principal; None without valid credentials."""

_INIT_KEYS = ("Authorization", "authorization", "authToken")
"""Keys of the credential in `connection_init`; the last one has no `Bearer`."""

SHARE_PARAMETER = "share"
"""Name of the path parameter that holds the token of a share. It must not reach logs or records."""


async def principal_of(connection: HTTPConnection) -> Principal | None:
    """Identify the sender of a request by its `Authorization` header.

    Args:
        connection: A request or a WebSocket's handshake.

    Returns:
        None without credentials and with unknown ones.
    """
    return await _identify(runtime_of(connection), connection.headers.get("authorization"))


async def principal_of_share(connection: HTTPConnection) -> Principal:
    """Identify the sender of a request by the token of a share in its path.

    Args:
        connection: A request to a route below `/s/{share}`.

    Raises:
        NotFound: There is no such share, or it has ended.
    """
    runtime = runtime_of(connection)
    token = str(connection.path_params[SHARE_PARAMETER])
    principal = await runtime.authenticator.authenticate_share(token)
    if principal is None:
        raise NotFound("This link does not exist, or it has ended.")
    await _record_use(runtime, principal)
    return principal


async def principal_of_connection_params(
    runtime: Runtime, params: Mapping[str, object]
) -> Principal | None:
    """Identify a WebSocket by the payload of its `connection_init`.

    Args:
        runtime: The services.
        params: The payload: `Authorization` as the header would be, or `authToken` with the token.

    Returns:
        None without credentials and with unknown ones.
    """
    found = next((params[key] for key in _INIT_KEYS if isinstance(params.get(key), str)), None)
    if isinstance(found, str) and not found.lower().startswith("bearer "):
        found = f"Bearer {found}"
    return await _identify(runtime, found if isinstance(found, str) else None)


async def principal_of_websocket(
    runtime: Runtime, params: Mapping[str, object], of_handshake: Identify
) -> Principal | None:
    """Identify a WebSocket by the payload of its `connection_init`, else by its handshake.

    Args:
        runtime: The services.
        params: The payload.
        of_handshake: Identifies by the handshake's header.

    Returns:
        None without credentials, and with unknown, revoked or expired ones.
    """
    if any(isinstance(params.get(key), str) for key in _INIT_KEYS):
        # A share that has ended must not fall back to the credentials of the handshake.
        return await principal_of_connection_params(runtime, params)
    return await of_handshake()


async def _identify(runtime: Runtime, authorization: str | None) -> Principal | None:
    principal = await runtime.authenticator.authenticate(authorization)
    if principal is not None:
        await _record_use(runtime, principal)
    return principal


async def _record_use(runtime: Runtime, principal: Principal) -> None:
    """Record that a share is used, once an hour in the audit trail."""
    if principal.share_id is None or not await runtime.sharing.record_use(principal.share_id):
        return
    event = AuditEvent(
        action=Action.SHARE,
        principal=principal,
        correlation_id=correlation_id.get(),
        client_address=client_address.get(),
        detail=f"opened {principal.share_id}",
        study_ids=set(principal.scope.study_ids or ()),
    )
    await runtime.audit.enqueue(event)
