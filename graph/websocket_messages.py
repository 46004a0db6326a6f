"""Messages of graphql-transport-ws as they arrive: what is none ends the connection with 4400.

Strawberry counts on their shape; anything else would be an unexpected error, with a traceback in
the log, and a stranger needs no credential to send one.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from strawberry.asgi import ASGIWebSocketAdapter
from strawberry.http.exceptions import NonJsonMessageReceived

_REASON_MAX_BYTES = 123
"""RFC 6455, 5.5: a control frame has 125 bytes, two of which are the code."""


class CheckedMessages(ASGIWebSocketAdapter):
    """The connection that Strawberry reads from and closes."""

    async def iter_json(
        self, *, ignore_parsing_errors: bool = False
    ) -> AsyncGenerator[object, None]:
        """Yield the messages.

        Raises:
            NonJsonMessageReceived: This is none; Strawberry closes the connection.
        """
        messages = super().iter_json(ignore_parsing_errors=ignore_parsing_errors)
        async with aclosing(messages):
            async for message in messages:
                if not is_message(message):
                    raise NonJsonMessageReceived
                yield message

    async def close(self, code: int, reason: str) -> None:
        """Close the connection; Strawberry's reasons repeat what was sent, however long."""
        short = reason.encode(errors="replace")[:_REASON_MAX_BYTES].decode(errors="ignore")
        await super().close(code, short)


def is_message(message: object) -> bool:
    """Tell whether decoded JSON has the shape of a message from a client.

    Its type may be unknown: that has an answer of its own.
    """
    match message:
        case {"type": "subscribe", "id": str(), "payload": {"query": str()} as operation}:
            return isinstance(operation.get("variables"), dict | None) and isinstance(
                operation.get("operationName"), str | None
            )
        case {"type": "complete", "id": str()}:
            return True
        case {"type": "subscribe" | "complete"}:
            return False
        case {"type": str()}:
            return True
    return False
