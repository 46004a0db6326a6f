"""Messages of graphql-transport-ws as they arrive: what is none ends the connection with 4400.

Strawberry counts on their shape; anything else would be an unexpected error, with a traceback in
the log, and a stranger needs no credential to send one.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from graphql import GraphQLError
from strawberry.asgi import ASGIWebSocketAdapter
from strawberry.http.exceptions import NonJsonMessageReceived
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import (
    BaseGraphQLTransportWSHandler,
    Operation,
)
from strawberry.subscriptions.protocols.graphql_transport_ws.types import SubscribeMessage
from strawberry.types.execution import PreExecutionError

from graph.context import Context
from services.errors import LimitExceeded


class PerOperationContext(BaseGraphQLTransportWSHandler[Context, None]):
    """The operations of one connection."""

    async def handle_subscribe(self, message: SubscribeMessage) -> None:
        """Start an operation, or refuse it where too many run."""
        allowed = self.max_subscriptions_per_connection
        is_new = self.connection_acknowledged and message["id"] not in self.operations
        if not is_new or allowed is None or len(self.operations) < allowed:
            await super().handle_subscribe(message)
            return
        error = GraphQLError(
            f"A WebSocket may have {allowed} operations at once.",
            extensions={"code": LimitExceeded.code},
        )
        await self.send_message(
            {"id": message["id"], "type": "error", "payload": [error.formatted]}
        )

    async def _handle_pre_execution_error(
        self, operation: Operation[Context, None], result: PreExecutionError
    ) -> None:
        await operation.send_initial_errors(result.errors or [])


_REASON_MAX_BYTES = 123
"""RFC 6455, 5.5: a control frame has 125 bytes, two of which are the code."""


class MessageValidator(ASGIWebSocketAdapter):
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
