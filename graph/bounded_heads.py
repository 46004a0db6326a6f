"""Heads of requests that do not end or are too large: cut, so that they cost nobody else a thing.

uvicorn and httptools bound the first line of a request, and neither its headers nor the trailers
behind a chunked body.
"""

import asyncio
import logging
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_log = logging.getLogger(__name__)

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


class BoundedHeads(HttpToolsProtocol):
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
