"""The hook between an answer and the wire: the audit trail first."""

from collections.abc import AsyncIterator

from strawberry.extensions import SchemaExtension

from graph.auditing import note_accesses


class AuditedOperation(SchemaExtension):
    """Hands what an operation did over to the audit trail before its answer goes out.

    What can't be handed over fails the operation: nothing is shown that is not written down.
    """

    async def on_execute(self) -> AsyncIterator[None]:
        """Tell of a query or a mutation."""
        yield
        await self._note()

    async def on_stream_result(self, result: object) -> AsyncIterator[None]:
        """Tell of an event of a subscription, or of its refusal."""
        del result
        await self._note()
        yield

    async def _note(self) -> None:
        context = self.execution_context.context
        await note_accesses(context.runtime.audit, context.accesses, context.principal)
