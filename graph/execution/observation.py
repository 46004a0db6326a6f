"""Counts, times and traces operations."""

from collections.abc import AsyncIterator
from time import perf_counter

from graphql import FieldNode, get_operation_ast
from strawberry.extensions import SchemaExtension
from strawberry.types.graphql import OperationType

from graph.state import correlation_id, trace_parent
from services.observability.metrics import OPERATION_SECONDS, OPERATIONS, SUBSCRIPTIONS
from services.observability.tracing import TRACING


class ObservedOperation(SchemaExtension):
    """Counts every operation with its outcome; times and traces queries and mutations.

    The duration of a subscription is up to its client, so it is not measured. The label is the type
    of the operation, not its name, which clients choose freely.
    """

    _is_subscription = False

    async def on_operation(self) -> AsyncIterator[None]:
        """Count an operation, also if it is refused before its execution."""
        context = self.execution_context
        started = perf_counter()
        outcome = "cancelled"
        try:
            yield
            outcome = "error" if context.pre_execution_errors else "ok"
        except Exception:
            outcome = "error"
            raise
        finally:
            if self._is_subscription:
                SUBSCRIPTIONS.dec()
            kind = self._kind()
            OPERATIONS.labels(kind, outcome).inc()
            if kind in ("query", "mutation"):
                OPERATION_SECONDS.labels(kind).observe(perf_counter() - started)

    async def on_execute(self) -> AsyncIterator[None]:
        """Trace the execution of a query or mutation, and the start of a subscription."""
        kind = self._kind()
        if kind == "subscription":
            self._is_subscription = True
            SUBSCRIPTIONS.inc()
        with TRACING.span(
            f"GraphQL {kind}",
            kind="SERVER",
            parent=trace_parent.get(),
            attributes={"graphql.operation.type": kind, "correlation.id": correlation_id.get()},
        ) as span:
            if span is not None:
                span.set_attribute("graphql.fields", self._fields())
            yield

    def _fields(self) -> list[str]:
        """Return the names of the root fields, as far as the schema has them."""
        context = self.execution_context
        if context.graphql_document is None:
            return []
        operation = get_operation_ast(context.graphql_document, context.operation_name)
        selections = () if operation is None else operation.selection_set.selections
        return sorted({one.name.value for one in selections if isinstance(one, FieldNode)})

    def _kind(self) -> str:
        """Return the type of the operation; `unknown` if the document is not valid."""
        try:
            kind: OperationType = self.execution_context.operation_type
        except Exception:  # noqa: BLE001  # whatever Strawberry raises for what it can't parse
            return "unknown"
        return kind.value.lower()
