"""How uvicorn serves the application: what it reads, whom it believes and what it keeps quiet."""

import asyncio
import logging
from http import HTTPStatus

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from services.settings import Settings

_log = logging.getLogger(__name__)

STALLED_SECONDS = 10.0
"""A client that takes nothing for so long does not read: the slowest link carries some bytes."""

GRACE_SECONDS = 10.0
"""So long it may fetch what was sent and the reason, then the connection is cut."""

TRY_AGAIN_LATER = 1013
"""Close code (RFC 6455 7.4.2, IANA's registry): clients of graphql-transport-ws connect again."""

_REASON = "You read too slowly. Connect and subscribe again."


class WebSocketWriteTimeout(WebSocketsSansIOProtocol):
    """uvicorn's protocol for WebSockets, without patience for clients that do not read.

    While a client does not read, all that is sent to it waits, with the application's task, for as
    long as the connection lasts; and TCP lets it last.
    """

    _deadline: asyncio.TimerHandle | None = None
    _is_ended = False

    def pause_writing(self) -> None:
        """Begin to wait: 64 KiB are on their way that the client does not take."""
        super().pause_writing()
        if not self._is_ended:
            self._deadline = self.loop.call_later(STALLED_SECONDS, self._end)

    def resume_writing(self) -> None:
        """Go on: the client reads again, unless it is too late."""
        if not self._is_ended:
            self._forget_deadline()
            super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything."""
        self._forget_deadline()
        super().connection_lost(exc)

    def _end(self) -> None:
        self._is_ended = True
        _log.warning("a WebSocket is closed: its client does not read")
        if not (self.close_sent or self.transport.is_closing()):
            self.stop_keepalive()
            self.conn.fail(TRY_AGAIN_LATER, _REASON)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
        self.transport.close()
        self._deadline = self.loop.call_later(GRACE_SECONDS, self.transport.abort)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


HEAD_SECONDS = 30.0
"""From the connection, or a request's first byte, to the end of its headers."""

HEAD_MAX_BYTES = 64 * 1024
"""Of the headers of a request, and of its trailers: tokens and cookies are a few kB."""

HEAD_MAX_FIELDS = 100

_LINGER_SECONDS = 2.0
"""So long the rest is thrown away, that the sender may read why (RFC 9112 9.6)."""

_TOO_LARGE = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


class _HeadTooLarge(Exception):  # httptools hands it on as an error of its own
    pass


class HeaderLimitsProtocol(HttpToolsProtocol):
    """uvicorn's protocol for HTTP, without patience for heads.

    uvicorn ends connections that are idle between two requests; before the first, and within one's
    headers, it waits for as long as TCP lets it, and keeps all that comes.
    """

    _deadline: asyncio.TimerHandle | None = None
    _is_in_body = False
    _is_too_large = False
    _fields = 0
    _fields_bytes = 0
    _unread_bytes = 0
    """Came since the parser last told of anything: a field, a chunk's head or a trailer goes on."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn declares it
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait_for_headers()

    def data_received(self, data: bytes) -> None:
        """Read on, unless that is a head without end."""
        if self._is_too_large:
            return
        self._unread_bytes += len(data)
        super().data_received(data)
        if self._unread_bytes > HEAD_MAX_BYTES and not self.transport.is_closing():
            self._is_too_large = True
            self.send_400_response("")

    def on_message_begin(self) -> None:
        """Begin to wait for the end of the headers, unless that is waited for already."""
        super().on_message_begin()
        self._is_in_body = False
        self._begin_fields()
        self._wait_for_headers()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; a trailer is left out, for it would pass as a header of the request."""
        self._fields += 1
        self._fields_bytes += len(name) + len(value)
        self._unread_bytes = 0
        if self._fields > HEAD_MAX_FIELDS or self._fields_bytes > HEAD_MAX_BYTES:
            self._is_too_large = True
            raise _HeadTooLarge
        if not self._is_in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Wait no more: what follows has limits of its own."""
        self._forget_deadline()
        self._is_in_body = True
        self._begin_fields()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._unread_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Begin to read the next request."""
        self._unread_bytes = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, or a head that is too large, and close the connection."""
        if not self._is_too_large:
            super().send_400_response(msg)
            return
        _log.info("a connection is closed: its request's head is too large")
        self._forget_deadline()
        if self._is_in_body:
            # The application may have begun to answer.
            self.transport.close()
            return
        self.transport.write(
            f"HTTP/1.1 {_TOO_LARGE.value} {_TOO_LARGE.phrase}\r\n"
            "content-length: 0\r\nconnection: close\r\n\r\n".encode("ascii")
        )
        self.transport.write_eof()
        self._deadline = self.loop.call_later(_LINGER_SECONDS, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything."""
        self._forget_deadline()
        super().connection_lost(exc)

    def _begin_fields(self) -> None:
        self._fields = self._fields_bytes = self._unread_bytes = 0

    def _wait_for_headers(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._end)

    def _end(self) -> None:
        _log.info("a connection is closed: its request's headers did not end")
        self.transport.close()

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


_SHUTDOWN_SECONDS = 5
"""Requests that run longer than this after Ctrl-C are cut."""

_WEBSOCKET_MAX_BYTES = 1024 * 1024
"""Messages are GraphQL operations: the same limit as a body's."""


def server_config(
    app: ASGIApp, settings: Settings, *, shutdown_seconds: int = _SHUTDOWN_SECONDS
) -> uvicorn.Config:
    """Configure the HTTP server.

    Args:
        app: The application; its lifespan is run.
        settings: TRUSTED_PROXIES counts.
        shutdown_seconds: Requests that run longer after the end was asked for are cut.
    """
    return uvicorn.Config(
        app,
        # By the stricter of uvicorn's parsers: it refuses a request with two lengths.
        http=HeaderLimitsProtocol,
        # Left out, uvicorn believes every process of this machine, and FORWARDED_ALLOW_IPS.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        ws=WebSocketWriteTimeout,
        ws_max_size=_WEBSOCKET_MAX_BYTES,
        timeout_graceful_shutdown=shutdown_seconds,
    )
