"""Requests whose headers do not end: cut, so that a connection costs its sender something."""

import asyncio
import logging

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_log = logging.getLogger(__name__)

HEADERS_SECONDS = 30.0
"""From the connection, or a request's first byte, to the end of its headers."""


class PromptHeaders(HttpToolsProtocol):
    """uvicorn's protocol for HTTP, without patience for headers.

    uvicorn ends connections that are idle between two requests; before the first, and within one's
    headers, it waits for as long as TCP lets it.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn declares it
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait_for_headers()

    def on_message_begin(self) -> None:
        """Begin to wait for the end of the headers, unless that is waited for already."""
        super().on_message_begin()
        self._wait_for_headers()

    def on_headers_complete(self) -> None:
        """Wait no more: what follows has limits of its own."""
        self._forget_deadline()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything."""
        self._forget_deadline()
        super().connection_lost(exc)

    def _wait_for_headers(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEADERS_SECONDS, self._end)

    def _end(self) -> None:
        _log.info("a connection is closed: its request's headers did not end")
        self.transport.close()

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
