"""Answers that come before the request was read: the rest of its body is not waited for."""

import asyncio
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LINGER_SECONDS = 2.0
"""How long the sender has to notice the answer: some round trips of any network."""

_LINGER_BYTES = 1024 * 1024
"""What is read and thrown away meanwhile; a small body ends within it."""


class UnreadBody:
    """Closes the connection after an answer to a request whose body was not read to its end.

    To answer the next request on that connection, the server would have to read the rest first,
    however much it is. Closing at once would reset the connection and might destroy the answer
    before its reader has it, so the sender gets a moment to stop (RFC 9112, 9.6).

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; one without a body passes."""
        if scope["type"] != "http" or not _announces_body(scope["headers"]):
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(receive, send)
        await self._app(scope, exchange.receive, exchange.send)
        await exchange.close()


class _Exchange:
    """A request and its answer."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._is_read = False
        self._is_last = False
        self._is_answered = False

    async def receive(self) -> Message:
        message = await self._receive()
        # After a disconnect there is nothing left to read either.
        self._is_read = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self._is_read:
            self._is_last = True
            headers = [*message["headers"], (b"connection", b"close")]
            message = {**message, "headers": headers}
        elif self._is_last and not message.get("more_body", False):
            # Its end closes the connection: that is for `close`.
            self._is_answered = True
            message = {**message, "more_body": True}
        await self._send(message)

    async def close(self) -> None:
        """End an answer that came early, when its sender had the time to notice it."""
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
                    # What still comes waits at its sender: read, it would make room for more.
                    await asyncio.Event().wait()
        except TimeoutError:
            # The sender has had its time.
            return


def _announces_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(
        (name == b"content-length" and value != b"0") or name == b"transfer-encoding"
        for name, value in headers
    )
