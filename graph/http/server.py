"""How uvicorn serves the application: limits on what clients send and on how slowly they read."""

import asyncio
import logging
import resource
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from services.settings import Settings

_log = logging.getLogger(__name__)

STALLED_SECONDS = 10.0
"""A client must receive `STALLED_BYTES` in each interval, which the slowest links allow."""

STALLED_BYTES = 16 * 1024

GRACE_SECONDS = 10.0
"""Time for the client of a WebSocket to read the data that was sent and the close frame."""

TRY_AGAIN_LATER = 1013
"""Close code (RFC 6455 7.4.2, IANA's registry) after which clients connect again."""

MESSAGE_TOO_BIG = 1009
"""Close code (RFC 6455 7.4.1)."""

INVALID_TEXT = 1007
"""Close code (RFC 6455 7.4.1)."""

_REASON = "You read too slowly. Connect and subscribe again."


class _ReadingWatch:
    """Detects a client that does not read the data that is sent to it.

    TCP keeps a connection open while the client answers probes, even if it does not read. The
    response, its task and its source (a connection to Orthanc, 16 MB of JSON) would stay as long.

    Args:
        loop: The event loop.
        transport: The transport whose buffer is watched.
        stalled: Called once, when the client received less than `STALLED_BYTES` in
            `STALLED_SECONDS`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.Transport,
        stalled: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._stalled = stalled
        self._timer: asyncio.TimerHandle | None = None
        self._unread_bytes = 0

    @property
    def is_watching(self) -> bool:
        """Whether there is data that the client has not received yet."""
        return self._timer is not None

    def start(self) -> None:
        """Watch until the client has received everything."""
        if self._timer is None:
            self._begin_interval()

    def stop(self) -> None:
        """Stop watching, because the connection is closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin_interval(self) -> None:
        self._unread_bytes = self._transport.get_write_buffer_size()
        self._timer = self._loop.call_later(STALLED_SECONDS, self._end_interval)

    def _end_interval(self) -> None:
        self._timer = None
        unread_bytes = self._transport.get_write_buffer_size()
        if not unread_bytes:
            return
        if unread_bytes > self._unread_bytes - STALLED_BYTES:
            self._stalled()
        else:
            self._begin_interval()


_INIT_MAX_BYTES = 32 * 1024
"""Most bytes on a WebSocket before its client is authenticated: a large token has 16 KiB."""

LARGE_MESSAGES = "orthanc_graphql.large_messages"
"""Key of the scope's extensions, which the application sets when the client is authenticated."""


def _is_utf_8(fragments: Sequence[bytes]) -> bool:
    try:
        b"".join(fragments).decode()
    except UnicodeDecodeError:
        return False
    return True


class WebSocketLimitsProtocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol for WebSockets, with limits for unknown clients and slow readers.

    uvicorn waits for a client that does not read as long as the connection lasts, and keeps the
    task of the application and the data. It also keeps 1 MiB of any client's unfinished message.
    """

    _watch: _ReadingWatch | None = None
    _cut: asyncio.TimerHandle | None = None
    _is_ended = False
    _bytes_before_init = 0

    def data_received(self, data: bytes) -> None:
        """Continue reading, unless an unauthenticated client sends too much."""
        if self._is_ended:
            return
        is_unknown = self.handshake_initiated and LARGE_MESSAGES not in self.scope["extensions"]
        self._bytes_before_init += len(data) if is_unknown else 0
        if self._bytes_before_init <= _INIT_MAX_BYTES:
            super().data_received(data)
        if is_unknown and self._is_too_much():
            self._end(MESSAGE_TOO_BIG, "connection_init is too large.")
            self.queue.put_nowait({"type": "websocket.disconnect", "code": MESSAGE_TOO_BIG})

    def _is_too_much(self) -> bool:
        # uvicorn collects the fragments of a message here.
        held = sum(len(fragment) for fragment in self.frames)
        return max(self._bytes_before_init, held) > _INIT_MAX_BYTES

    def send_receive_event_to_app(self) -> None:
        """Pass a message on; text that is not UTF-8 closes the connection (RFC 6455, 8.1).

        uvicorn would log it as a server error with a traceback, and any client can send it.
        """
        if self.curr_msg_data_type == "bytes" or _is_utf_8(self.frames) or self.close_sent:
            super().send_receive_event_to_app()
            return
        self.frames = []
        self.conn.send_close(INVALID_TEXT)
        self.handle_parser_exception()

    def pause_writing(self) -> None:
        """Watch the client: 64 KiB are on their way that it has not taken."""
        super().pause_writing()
        if not self._is_ended:
            self._watch = self._watch or _ReadingWatch(self.loop, self.transport, self._stop)
            self._watch.start()

    def resume_writing(self) -> None:
        """Continue, because the client reads again or the connection was closed."""
        if not self._is_ended:
            super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """End all timers."""
        if self._watch is not None:
            self._watch.stop()
        if self._cut is not None:
            self._cut.cancel()
        super().connection_lost(exc)

    def _stop(self) -> None:
        _log.warning("a WebSocket is closed: its client does not read")
        self._end(TRY_AGAIN_LATER, _REASON)

    def _end(self, code: int, reason: str) -> None:
        """Close with a code, and abort the connection if the client does not read that either."""
        self._is_ended = True
        if not (self.close_sent or self.transport.is_closing()):
            self.stop_keepalive()
            self.conn.fail(code, reason)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
        self.transport.close()
        self._cut = self.loop.call_later(GRACE_SECONDS, self.transport.abort)


HEAD_SECONDS = 30.0
"""Time from the connection, or the first byte of a request, to the end of its headers."""

HEAD_MAX_BYTES = 64 * 1024
"""Largest headers of a request, and largest trailers: tokens and cookies are a few kB."""

HEAD_MAX_FIELDS = 100

_LINGER_SECONDS = 2.0
"""Time in which the rest is discarded, so that the sender can read the response (RFC 9112, 9.6)."""

_TOO_LARGE = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


class _HeadTooLarge(Exception):  # httptools hands it on as an error of its own
    pass


_RESERVED_DESCRIPTORS = 32
"""Descriptors that remain for files, MongoDB and Orthanc, so that uploads do not fail."""

_DESCRIPTOR_WARNING_SECONDS = 10.0


class _DescriptorWarning:
    """Logs that descriptors are running out, at most every few seconds; libuv does not log it."""

    def __init__(self) -> None:
        self._logged_at = float("-inf")

    def log(self, limit: int) -> None:
        now = time.monotonic()
        if now - self._logged_at >= _DESCRIPTOR_WARNING_SECONDS:
            self._logged_at = now
            _log.error(
                "new connections are closed: all but %d of %d file descriptors are in use; raise "
                "the limit (ulimit -n, LimitNOFILE) or bound connections in the proxy",
                _RESERVED_DESCRIPTORS,
                limit,
            )


_descriptor_warning = _DescriptorWarning()


class HttpLimitsProtocol(HttpToolsProtocol):
    """uvicorn's protocol for HTTP, with limits on request headers and on slow readers.

    uvicorn ends connections that are idle between two requests; before the first, and within one's
    headers, it waits for as long as TCP lets it, and keeps all that comes. It waits as long for
    clients that do not read their answer.
    """

    _watch: _ReadingWatch | None = None

    _deadline: asyncio.TimerHandle | None = None
    _is_in_body = False
    _is_too_large = False
    _fields = 0
    _fields_bytes = 0
    _unread_bytes = 0
    """Received since the last callback of the parser: inside one field, chunk header or trailer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn declares it
        """Begin to wait for the first request; close at once where descriptors run out."""
        super().connection_made(transport)
        self._watch = _ReadingWatch(self.loop, transport, self._cut_reader)
        self._wait_for_headers()
        # The system gives out the lowest free number, so a high one shows that many are in use.
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        opened = transport.get_extra_info("socket")
        if opened is not None and opened.fileno() >= limit - _RESERVED_DESCRIPTORS:
            _descriptor_warning.log(limit)
            transport.abort()

    def pause_writing(self) -> None:
        """Watch the client: 64 KiB are on their way that it has not taken."""
        super().pause_writing()
        self._watch_reader()

    def on_response_complete(self) -> None:
        """Watch the client also if the rest of the response is small."""
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self._watch_reader()

    def _watch_reader(self) -> None:
        if self._watch is not None:
            self._watch.start()

    def _cut_reader(self) -> None:
        _log.warning("a connection is cut: its client does not read the answer")
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Continue reading, unless the headers are too large."""
        if self._is_too_large:
            return
        self._unread_bytes += len(data)
        super().data_received(data)
        if self._unread_bytes > HEAD_MAX_BYTES and not self.transport.is_closing():
            self._is_too_large = True
            self.send_400_response("")

    def on_message_begin(self) -> None:
        """Start the deadline of the headers, unless it is running."""
        super().on_message_begin()
        self._is_in_body = False
        self._begin_fields()
        self._wait_for_headers()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Accept a header; drop a trailer, which would be taken for a header of the request."""
        self._fields += 1
        self._fields_bytes += len(name) + len(value)
        self._unread_bytes = 0
        if self._fields > HEAD_MAX_FIELDS or self._fields_bytes > HEAD_MAX_BYTES:
            self._is_too_large = True
            raise _HeadTooLarge
        if not self._is_in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Stop the deadline, because the body has its own limits."""
        self._cancel_deadline()
        self._is_in_body = True
        self._begin_fields()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Receive a piece of the body."""
        self._unread_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Begin to read the next request."""
        self._unread_bytes = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse invalid HTTP or too large headers, and close the connection."""
        if not self._is_too_large:
            super().send_400_response(msg)
            return
        _log.info("a connection is closed: its request's headers are too large")
        self._cancel_deadline()
        if self._is_in_body:
            # The application may have started the response.
            self.transport.close()
            return
        self.transport.write(
            f"HTTP/1.1 {_TOO_LARGE.value} {_TOO_LARGE.phrase}\r\n"
            "content-length: 0\r\nconnection: close\r\n\r\n".encode("ascii")
        )
        self.transport.write_eof()
        self._deadline = self.loop.call_later(_LINGER_SECONDS, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """End all timers."""
        self._cancel_deadline()
        if self._watch is not None:
            self._watch.stop()
        super().connection_lost(exc)

    def _begin_fields(self) -> None:
        self._fields = self._fields_bytes = self._unread_bytes = 0

    def _wait_for_headers(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._end)

    def _end(self) -> None:
        _log.info("a connection is closed: its request's headers did not end")
        self.transport.close()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


KEEP_ALIVE_SECONDS = 130
"""Longer than proxies keep idle connections (nginx 60 s, Caddy 120 s), so that the proxy closes
them: otherwise a request could arrive while we close, and no proxy repeats a POST."""

_WEBSOCKET_MAX_BYTES = 1024 * 1024
"""Messages are GraphQL operations: the same limit as a body's."""


def server_config(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    """Configure the HTTP server.

    Args:
        app: The application; its lifespan is run.
        settings: TRUSTED_PROXIES and SHUTDOWN_SECONDS are read.
    """
    return uvicorn.Config(
        app,
        # The stricter of uvicorn's parsers, which refuses a request with two lengths.
        http=HttpLimitsProtocol,
        # By default, uvicorn trusts every local process, and FORWARDED_ALLOW_IPS.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        ws=WebSocketLimitsProtocol,
        ws_max_size=_WEBSOCKET_MAX_BYTES,
        # uvicorn compresses a message in one turn of the event loop: 40 MB take 0.6 s.
        ws_per_message_deflate=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )
