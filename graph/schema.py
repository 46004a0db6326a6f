"""Builds the schema: types, names, scalars, limits and the handling of errors."""

from collections.abc import Iterator
from typing import Any

import strawberry
from graphql import (
    GraphQLArgument,
    GraphQLError,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLObjectType,
    GraphQLSchema,
    Undefined,
)
from strawberry.extensions.runner import SchemaExtensionsRunner
from strawberry.schema.config import StrawberryConfig
from strawberry.schema.name_converter import NameConverter
from strawberry.types import ExecutionContext
from strawberry.types.execution import PreExecutionError

from graph.execution.audit import AuditedOperation
from graph.execution.errors import publish_errors
from graph.execution.executor import PlanningExecutor
from graph.execution.limits import LimitedOperation, OperationLimits
from graph.execution.observation import ObservedOperation
from graph.mutations import Mutation
from graph.queries import Query
from graph.subscriptions import Subscription
from graph.types.scalars import SCALARS
from models.names import contract_name
from services.errors import Error
from services.settings import Settings


class DicomNameConverter(NameConverter):
    """Names fields and arguments as DICOM keywords with a lower-case first letter."""

    def apply_naming_config(self, name: str) -> str:
        """Return the public name of a Python name."""
        return contract_name(name)


class Schema(strawberry.Schema):
    """A schema that masks foreign errors, and whose arguments have no default null."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for argument in _arguments(self._schema):
            # Null and absent mean the same here, but graphql-core coerces a default at every
            # call: a third of the time of a tree with a URL per frame.
            if argument.default_value is None:
                argument.default_value = Undefined

    async def _prepare_operation_async(
        self, context: ExecutionContext, extensions_runner: SchemaExtensionsRunner
    ) -> PreExecutionError | None:
        """Return refusals of the limits like other errors before the execution.

        Strawberry does so only for single results; a stream would end without an error.
        """
        try:
            return await super()._prepare_operation_async(context, extensions_runner)
        except Error as exc:
            error = GraphQLError(str(exc), original_error=exc)
        except GraphQLError as exc:
            error = exc
        return PreExecutionError(data=None, errors=[error])

    def process_errors(
        self,
        errors: list[GraphQLError],
        execution_context: ExecutionContext | None = None,
    ) -> None:
        """Publish errors; Strawberry would log each with its traceback and its query."""
        del execution_context
        publish_errors(errors)


def _arguments(schema: GraphQLSchema) -> Iterator[GraphQLArgument | GraphQLInputField]:
    for graphql_type in schema.type_map.values():
        if isinstance(graphql_type, GraphQLObjectType):
            for field in graphql_type.fields.values():
                yield from field.args.values()
        elif isinstance(graphql_type, GraphQLInputObjectType):
            yield from graphql_type.fields.values()


def build_schema(settings: Settings | None = None) -> Schema:
    """Build the schema.

    Args:
        settings: Limits of operations; None for the defaults.
    """
    # Without reading the environment, so that the exported schema is the same everywhere.
    limits = OperationLimits.from_settings(settings or Settings.model_construct())
    return Schema(
        query=Query,
        mutation=Mutation,
        subscription=Subscription,
        execution_context_class=PlanningExecutor,
        extensions=[ObservedOperation, AuditedOperation, lambda: LimitedOperation(limits)],
        config=StrawberryConfig(
            name_converter=DicomNameConverter(), scalar_map=SCALARS, disable_field_suggestions=True
        ),
    )


def schema_sdl() -> str:
    """Return the schema as SDL, with a newline at its end."""
    return build_schema().as_str() + "\n"
