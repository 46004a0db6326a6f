"""Who sent a request, and which servers may be without credentials."""

import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from graph.state import runtime_of
from services.access import Principal
from services.credentials.authenticator import Authenticator
from services.errors import Error
from services.runtime import Runtime

Identify = Callable[[], Awaitable[Principal | None]]
"""Tells who it is now; None when it is nobody, or nobody any more."""

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_INIT_KEYS = ("Authorization", "authorization", "authToken")
"""Where clients put the credential into `connection_init`; the last one without `Bearer`."""


class OpenServerRefused(Error):
    """A server without credentials would be reachable from other machines."""

    code = "OPEN_SERVER_REFUSED"


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


def refuse_open_server(host: str, authenticator: Authenticator) -> None:
    """Let a server without credentials listen on the loopback interface only.

    Args:
        host: The address to listen on.
        authenticator: Knows whether credentials are configured.

    Raises:
        OpenServerRefused: Others could reach it, and it would ask nobody who they are.
    """
    if not authenticator.is_open or _is_loopback(host):
        return
    raise OpenServerRefused(
        f"Refused to listen on {host}: no credentials are configured, so everybody who reaches "
        "this address could read and delete all patient data. Make a token with `orthanc-graphql "
        "token create --role admin --name NAME`, or set OIDC_ISSUER and OIDC_AUDIENCE; or listen "
        "on 127.0.0.1."
    )


class LocalHostsOnly:
    """Refuses requests with a foreign `Host` while the server is open (DNS rebinding).

    A page of any origin may have its own name point to 127.0.0.1: to the browser it is then the
    same origin as this server. Its `Host` header gives it away. With credentials configured such
    a page has none, and every name is welcome.

    Args:
        app: The application.
        public_url: PUBLIC_URL, whose host is welcome too.
    """

    def __init__(self, app: ASGIApp, *, public_url: str | None = None) -> None:
        self._app = app
        public_host = urlsplit(public_url or "").hostname
        self._hosts = _LOOPBACK_NAMES | ({public_host} if public_host else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 421 (RFC 9110, 15.5.20); 403 to a WebSocket."""
        if scope["type"] not in ("http", "websocket") or self._is_welcome(HTTPConnection(scope)):
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 4403})
            return
        message = "This server has no credentials and answers only to its local name."
        error = {"message": message, "extensions": {"code": "MISDIRECTED_REQUEST"}}
        response = JSONResponse(
            {"errors": [error]}, status_code=421, headers={"Cache-Control": "no-store"}
        )
        await response(scope, receive, send)

    def _is_welcome(self, connection: HTTPConnection) -> bool:
        if not runtime_of(connection).authenticator.is_open:
            return True
        hosts = connection.headers.getlist("host")
        return len(hosts) == 1 and hostname_of(hosts[0]) in self._hosts


@lru_cache(maxsize=256)
def hostname_of(host_header: str) -> str | None:
    """Take the name out of a `Host` header, in lower case; None when it makes no sense."""
    if any(c in host_header for c in "/?#@\\ "):
        return None
    try:
        return urlsplit(f"//{host_header}").hostname
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    if host in _LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
