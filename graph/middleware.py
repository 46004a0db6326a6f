"""What surrounds every request: correlation id, access log, safe defaults in the headers."""

import logging
import time
from collections.abc import Iterable

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graph.correlation import client_address, correlation_id, new_correlation_id

access_log = logging.getLogger("orthanc_graphql.access")

_SAFE_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
"""Set where the route has not set its own; as ASGI spells them, for this runs at every picture."""


async def tell_unexpected(scope: Scope, receive: Receive, send: Send) -> None:
    """Tell that something broke, and by which id the log tells what."""
    message = "Something went wrong in the server."
    extensions = {"code": "INTERNAL_ERROR", "correlationId": correlation_id.get()}
    response = JSONResponse(
        {"errors": [{"message": message, "extensions": extensions}]},
        status_code=500,
        headers={"Cache-Control": "no-store"},
    )
    await response(scope, receive, send)


class RequestScope:
    """Gives a request its correlation id, logs it, and completes the headers of its answer.

    The log names the route's template, never the path: paths hold UIDs and signatures.

    Args:
        app: What answers.
        unexpected: Answers instead when that breaks before its first byte.
    """

    def __init__(self, app: ASGIApp, unexpected: ASGIApp = tell_unexpected) -> None:
        self._app = app
        self._unexpected = unexpected

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; lifespan messages pass."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id = new_correlation_id()
        token = correlation_id.set(request_id)
        peer = client_address.set(scope["client"][0] if scope.get("client") else None)
        status = 500
        has_begun = False
        started = time.perf_counter()

        async def send_completed(message: Message) -> None:
            nonlocal status, has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                status = message["status"]
                message["headers"] = _completed(message["headers"], request_id)
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
            _log_access(scope, status, time.perf_counter() - started)
            client_address.reset(peer)
            correlation_id.reset(token)


def _completed(
    headers: Iterable[tuple[bytes, bytes]], request_id: str
) -> list[tuple[bytes, bytes]]:
    own = [*headers, (b"x-request-id", request_id.encode())]
    names = [name for name, _ in own]
    own += [header for header in _SAFE_HEADERS if header[0] not in names]
    return own


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
