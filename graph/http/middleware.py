"""ASGI middleware: correlation ids, access log, safe headers, host check, early responses."""

import asyncio
import logging
import re
import time
from collections.abc import Collection, Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graph.http.cors import header_values
from graph.http.errors import problem
from graph.http.graphql_errors import graphql_error
from graph.state import (
    client_address,
    correlation_id,
    new_correlation_id,
    runtime_in,
    trace_parent,
)
from services.auth.open_mode import LOOPBACK_NAMES
from services.errors import Error
from services.observability.metrics import REQUESTS

_GRAPHQL = "/graphql"


class LocalHostMiddleware:
    """Refuses requests with a foreign `Host` while the server has no credentials (DNS rebinding).

    An attacker can make the name of a page resolve to 127.0.0.1, so that the browser takes this
    server for the same origin; the `Host` header still has the attacker's name. If credentials are
    configured, such a page has none, so all names are accepted.

    Args:
        app: The application.
        allowed_hosts: ALLOWED_HOSTS, names besides those of the loopback interface.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Collection[str] = ()) -> None:
        self._app = app
        self._allowed_hosts = LOOPBACK_NAMES.union(host.lower() for host in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 421 (RFC 9110, 15.5.20); refuse a WebSocket with 403."""
        if scope["type"] not in ("http", "websocket") or self._is_accepted(scope):
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 4403})
            return
        message = (
            "This server has no credentials, so it answers only to the names localhost and "
            "127.0.0.1. Name other hosts in ALLOWED_HOSTS, or make a token with `orthanc-graphql "
            "token create`."
        )
        response = _error_response(scope, 421, "MISDIRECTED_REQUEST", message)
        await response(scope, receive, send)

    def _is_accepted(self, scope: Scope) -> bool:
        if not runtime_in(scope).authenticator.is_open:
            return True
        hosts = header_values(scope, b"host")
        return len(hosts) == 1 and hostname_of(hosts[0]) in self._allowed_hosts


@lru_cache(maxsize=256)
def hostname_of(host_header: str) -> str | None:
    """Return the name in a `Host` header, in lower case; None when it is malformed."""
    if any(c in host_header for c in "/?#@\\ "):
        return None
    try:
        return urlsplit(f"//{host_header}").hostname
    except ValueError:
        return None


_LINGER_SECONDS = 2.0
"""Time for the sender to notice the response: several round trips of a slow network."""

_LINGER_BYTES = 1024 * 1024
"""Bytes of the body that are read and discarded; a small body ends within them."""


class EarlyResponseMiddleware:
    """Closes the connection after a response that was sent before the body was read.

    To serve the next request on that connection, the server would have to read the rest of the
    body first, whatever its size. Closing at once would reset the connection, which may discard the
    response before the client reads it, so the client gets a moment to stop (RFC 9112, 9.6).

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; requests without a body are passed on unchanged."""
        if scope["type"] != "http" or not _announces_body(scope["headers"]):
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(receive, send)
        await self._app(scope, exchange.receive, exchange.send)
        await exchange.close()


class _Exchange:
    """A request and its response."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._is_read = False
        self._is_last = False
        self._is_answered = False

    async def receive(self) -> Message:
        message = await self._receive()
        # After a disconnect nothing is left to read.
        self._is_read = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self._is_read:
            self._is_last = True
            headers = [*message["headers"], (b"connection", b"close")]
            message = {**message, "headers": headers}
        elif self._is_last and not message.get("more_body", False):
            # The last message closes the connection: `close` sends it after the delay.
            self._is_answered = True
            message = {**message, "more_body": True}
        await self._send(message)

    async def close(self) -> None:
        """End an early response after the delay."""
        if self._is_answered:
            await self._linger()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _linger(self) -> None:
        left = _LINGER_BYTES
        try:
            async with asyncio.timeout(_LINGER_SECONDS):
                while left > 0 and not self._is_read:
                    left -= len((await self.receive()).get("body", b""))
                if not self._is_read:
                    # Reading more would let the client send more.
                    await asyncio.Event().wait()
        except TimeoutError:
            return  # the delay is over


def _announces_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(
        (name == b"content-length" and value != b"0") or name == b"transfer-encoding"
        for name, value in headers
    )


access_log = logging.getLogger("orthanc_graphql.access")

_SAFE_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
"""Set unless the route sets them; encoded as in ASGI, because this runs for every picture."""


async def unexpected_error(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 500, with the correlation id under which the log has the exception."""
    response = _error_response(scope, 500, Error.code, Error.default_message)
    await response(scope, receive, send)


def _error_response(scope: Scope, status: int, code: str, message: str) -> Response:
    """Return an error in the format of the route: GraphQL's, or problem details."""
    headers = {"Cache-Control": "no-store"}
    if scope["path"] != _GRAPHQL:
        return problem(scope, status, code, message, headers)
    extensions = {"correlationId": correlation_id.get()}
    return graphql_error(HTTPConnection(scope), status, code, message, headers, extensions)


class RequestContextMiddleware:
    """Sets the correlation id of a request, logs and counts it, and adds headers to the response.

    Log and metrics contain the template of the route, never the path, which may contain UIDs and
    signatures.

    Args:
        app: The application.
        unexpected: Sends the response when the application fails before its first byte.
    """

    def __init__(self, app: ASGIApp, unexpected: ASGIApp = unexpected_error) -> None:
        self._app = app
        self._unexpected = unexpected

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; lifespan messages are passed on unchanged."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id = new_correlation_id()
        token = correlation_id.set(request_id)
        peer = client_address.set(scope["client"][0] if scope.get("client") else None)
        trace = trace_parent.set(_trace_parent(scope))
        REQUESTS.in_progress += 1
        status = 500
        has_begun = False
        started = time.perf_counter()

        async def send_completed(message: Message) -> None:
            nonlocal status, has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                status = message["status"]
                message["headers"] = _completed(message["headers"], request_id)
                if _is_stopping(scope):
                    # Close the connection: the client's next request should go to another process.
                    message["headers"].append((b"connection", b"close"))
            elif message["type"] == "websocket.accept":
                has_begun = True
                status = 101
            elif message["type"] == "websocket.close" and not has_begun:
                # A handshake that is refused (ASGI, "Close - send event").
                status = 403
            await send(message)

        try:
            await self._app(scope, receive, send_completed)
        except Exception:
            if scope["type"] != "http" or has_begun:
                raise
            access_log.exception("unexpected error")
            await self._unexpected(scope, receive, send_completed)
        finally:
            REQUESTS.in_progress -= 1
            _record(scope, status, time.perf_counter() - started)
            trace_parent.reset(trace)
            client_address.reset(peer)
            correlation_id.reset(token)


def _is_stopping(scope: Scope) -> bool:
    """Return whether this process is about to stop (`Readiness`)."""
    runtime = scope.get("state", {}).get("runtime")
    return runtime is not None and runtime.readiness.is_stopping


def _completed(
    headers: Iterable[tuple[bytes, bytes]], request_id: str
) -> list[tuple[bytes, bytes]]:
    own = [*headers, (b"x-request-id", request_id.encode())]
    names = [name for name, _ in own]
    own += [header for header in _SAFE_HEADERS if header[0] not in names]
    return own


_TRACE_PARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context, 3.2.2; nothing else gets into the log."""


def _trace_parent(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"traceparent":
            return value.decode() if _TRACE_PARENT.fullmatch(value) else None
    return None


def _record(scope: Scope, status: int, seconds: float) -> None:
    route = getattr(scope.get("route"), "path", "(no route)")
    method = scope.get("method", "WEBSOCKET")
    REQUESTS.record(route, method, status, seconds)
    if access_log.isEnabledFor(logging.INFO):
        fields = {"method": method, "route": route, "status": status, "seconds": round(seconds, 6)}
        access_log.info(
            "%s %s %d %.1f ms", method, route, status, seconds * 1000, extra={"fields": fields}
        )
