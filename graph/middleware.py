"""What surrounds every request: correlation id, access log, safe defaults in the headers."""

import logging
import time
from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graph.correlation import client_address, correlation_id, new_correlation_id

access_log = logging.getLogger("orthanc_graphql.access")

_SAFE_HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}
"""Set where the route has not set its own."""


class RequestScope:
    """Gives a request its correlation id, logs it, and completes the headers of its answer.

    The log names the route's template, never the path: paths hold UIDs and signatures.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; lifespan messages pass."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id = new_correlation_id()
        token = correlation_id.set(request_id)
        peer = client_address.set(scope["client"][0] if scope.get("client") else None)
        status = 500
        started = time.perf_counter()

        async def send_completed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _complete(MutableHeaders(raw=message["headers"]), request_id)
            elif message["type"] == "websocket.accept":
                status = 101
            await send(message)

        try:
            await self._app(scope, receive, send_completed)
        finally:
            _log_access(scope, status, time.perf_counter() - started)
            client_address.reset(peer)
            correlation_id.reset(token)


def _complete(headers: MutableHeaders, request_id: str) -> None:
    headers["X-Request-ID"] = request_id
    for name, value in _SAFE_HEADERS.items():
        headers.setdefault(name, value)


def _log_access(scope: Scope, status: int, seconds: float) -> None:
    if not access_log.isEnabledFor(logging.INFO):
        return
    route = scope.get("route")
    access_log.info(
        "%s %s %d %.1f ms",
        scope.get("method", "WEBSOCKET"),
        getattr(route, "path", "(no route)"),
        status,
        seconds * 1000,
    )
