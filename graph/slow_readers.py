"""WebSockets whose client stops reading: closed, so that nothing of theirs stays."""

import asyncio
import logging

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

_log = logging.getLogger(__name__)

STALLED_SECONDS = 10.0
"""A client that takes nothing for so long does not read: the slowest link carries some bytes."""

GRACE_SECONDS = 10.0
"""So long it may fetch what was sent and the reason, then the connection is cut."""

TRY_AGAIN_LATER = 1013
"""Close code (RFC 6455 7.4.2, IANA's registry): clients of graphql-transport-ws connect again."""

_REASON = "You read too slowly. Connect and subscribe again."


class SlowReadersClosed(WebSocketsSansIOProtocol):
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
