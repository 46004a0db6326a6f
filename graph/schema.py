"""The schema, assembled: types, names, scalars, limits and the policy for errors."""

import strawberry
from graphql import GraphQLError
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext

from graph.errors import publish_errors
from graph.limits import LimitedOperation, OperationLimits
from graph.mutations import UploadMutation
from graph.names import ContractNames
from graph.queries import Query
from graph.scalars import SCALARS
from graph.subscriptions import Subscription
from graph.sync_mutations import SyncMutation
from services.settings import Settings


@strawberry.type(description="Everything that changes something.")
class Mutation(UploadMutation, SyncMutation):
    """The root of all mutations."""


class Schema(strawberry.Schema):
    """A schema whose errors are ours, or masked."""

    def process_errors(
        self,
        errors: list[GraphQLError],
        execution_context: ExecutionContext | None = None,
    ) -> None:
        """Publish errors; Strawberry would log every one with its traceback and its query."""
        del execution_context
        publish_errors(errors)


def build_schema(settings: Settings | None = None) -> Schema:
    """Assemble the schema.

    Args:
        settings: Limits of operations; None for the defaults.
    """
    limits = OperationLimits() if settings is None else _limits(settings)
    return Schema(
        query=Query,
        mutation=Mutation,
        subscription=Subscription,
        extensions=[lambda: LimitedOperation(limits)],
        config=StrawberryConfig(
            name_converter=ContractNames(), scalar_map=SCALARS, disable_field_suggestions=True
        ),
    )


def schema_sdl() -> str:
    """Return the schema as SDL, with an end of line at its end."""
    return build_schema().as_str() + "\n"


def _limits(settings: Settings) -> OperationLimits:
    return OperationLimits(seconds=settings.operation_seconds)
