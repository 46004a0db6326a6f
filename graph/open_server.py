"""A server without credentials: where it may listen, and by which names it answers."""

import ipaddress
from collections.abc import Collection
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from graph.headers import header_values
from graph.state import runtime_in
from services.credentials.authenticator import Authenticator
from services.errors import Error

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class OpenServerRefused(Error):
    """A server without credentials would be reachable from other machines."""

    code = "OPEN_SERVER_REFUSED"


def refuse_open_server(
    host: str, authenticator: Authenticator, *, origins: Collection[str] = ()
) -> None:
    """Let a server without credentials serve this machine and its own pages only.

    Args:
        host: The address to listen on.
        authenticator: Knows whether credentials are configured.
        origins: CORS_ALLOWED_ORIGINS.

    Raises:
        OpenServerRefused: Others could reach it, and it would ask nobody who they are.
    """
    if not authenticator.is_open:
        return
    if "*" in origins:
        raise OpenServerRefused(
            "Refused to serve pages of every origin: no credentials are configured, so any page "
            "that is open in a browser on this machine could read and delete all patient data. "
            "Name the origins in CORS_ALLOWED_ORIGINS, or make a token with `orthanc-graphql "
            "token create --role admin --name NAME`."
        )
    if _is_loopback(host):
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
        if scope["type"] not in ("http", "websocket") or self._is_welcome(scope):
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

    def _is_welcome(self, scope: Scope) -> bool:
        if not runtime_in(scope).authenticator.is_open:
            return True
        hosts = header_values(scope, b"host")
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
