"""Operations over graphql-transport-ws: one that is refused ends alone, and says why by a code.

Strawberry closes the connection where a query is no GraphQL, and with it all other operations.
"""

from graphql import GraphQLError
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import (
    BaseGraphQLTransportWSHandler,
    Operation,
)
from strawberry.subscriptions.protocols.graphql_transport_ws.types import SubscribeMessage
from strawberry.types.execution import PreExecutionError

from graph.context import Context
from services.errors import LimitExceeded


class SeparateOperations(BaseGraphQLTransportWSHandler[Context, None]):
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
