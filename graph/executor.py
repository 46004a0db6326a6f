"""Executes operations as graphql-core does, with a short way for what answers at once.

A tree of 2,000 instances has 18,000 fields: nearly all are attributes that are copied and methods
that mint a URL. Strawberry and graphql-core read arguments, describe the field and look for
awaitables anew for each of them; here a selection set is planned once per operation. What has no
short way, and every value that is at fault, goes through graphql-core: errors are its errors.

It overrides methods of graphql-core that are not part of its documented interface;
`tests/graph/test_executor.py` holds both against the same answers.
"""

from collections.abc import Awaitable, Mapping
from typing import Any, Self, cast

from graphql import (
    GraphQLError,
    GraphQLField,
    GraphQLObjectType,
    GraphQLOutputType,
    Undefined,
    get_argument_values,
    get_named_type,
    is_leaf_type,
    is_object_type,
)
from graphql.execution.collect_fields import FieldDetailsList, GroupedFieldSet
from graphql.pyutils import AwaitableOrValue, Path
from strawberry.types.arguments import convert_arguments
from strawberry.types.field import StrawberryField

from graph.selection_plan import (
    CalledField,
    CopiedField,
    SelectionPlan,
    answers_at_once,
    call_with,
    definition_of,
    plan_copy,
)
from graph.turns import ListsInTurns


class PlanningExecutor(ListsInTurns):
    """Executes one operation.

    Attributes:
        plans: By the identity of the selection set.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.plans: dict[int, SelectionPlan] = {}

    def build_per_event_executor(self, payload: object) -> Self:
        """Begin an event of a subscription; its selection sets are new objects."""
        executor = cast("Self", super().build_per_event_executor(payload))
        executor.plans = {}
        # graphql-core's own, by identity, too: shared, it would grow with every event.
        executor._relevant_sub_fields = {}  # noqa: SLF001  # of the same class
        return executor

    def execute_fields(
        self,
        parent_type: GraphQLObjectType,
        source_value: object,
        path: Path | None,
        grouped_field_set: GroupedFieldSet,
        position_context: Any,  # noqa: ANN401  # of what is delivered later: not planned here
    ) -> AwaitableOrValue[dict[str, Any]]:
        """Execute the selection set of one object."""
        plan = self._plan(parent_type, grouped_field_set)
        if plan.is_plain or position_context is not None:
            return super().execute_fields(
                parent_type, source_value, path, grouped_field_set, position_context
            )
        # All names first: the answer has the order of the query.
        results: dict[str, Any] = dict.fromkeys(grouped_field_set)
        for copied in plan.copied:
            name, attribute, coerce, is_required, _ = copied
            try:
                value = getattr(source_value, attribute)
                if value is not None:
                    results[name] = coerced = coerce(value)
                    if coerced is not None and coerced is not Undefined:
                        continue
                    is_required = True
            except Exception:  # noqa: BLE001  # whatever it is, graphql-core knows how to say it
                is_required = True
            if is_required:
                results[name] = self._at_length(copied, parent_type, source_value, path)
        for called in plan.called:
            results[called.response_name] = self._call(called, parent_type, source_value, path)
        if not plan.others:
            return results
        others = super().execute_fields(
            parent_type, source_value, path, plan.others, position_context
        )
        if self.is_awaitable(others):
            return _completed(results, others)
        return results | cast("dict[str, Any]", others)

    def is_immediate(self, output_type: GraphQLOutputType, details: FieldDetailsList) -> bool:
        """Tell whether a value and all below it are complete without anything to await."""
        named = get_named_type(output_type)
        if is_leaf_type(named):
            return True
        if not is_object_type(named):
            return False
        try:
            selected = self.collect_subfields(named, details).grouped_field_set
        except GraphQLError:
            # A null in @skip or @include: graphql-core says so at each object.
            return False
        return not self._plan(named, selected).others

    def _at_length(
        self, copied: CopiedField, parent_type: GraphQLObjectType, source: object, path: Path | None
    ) -> object:
        here = Path(path, copied.response_name, parent_type.name)
        return self.execute_field(parent_type, source, copied.details, here, None)

    def _call(
        self, called: CalledField, parent_type: GraphQLObjectType, source: object, path: Path | None
    ) -> object:
        here = Path(path, called.response_name, parent_type.name)
        field, details = called.field, called.details
        info = self.build_resolve_info(field, called.nodes, parent_type, here)
        try:
            value = called.call(source, info)
            return self.complete_value(field.type, details, info, here, value, None)
        except Exception as exc:  # noqa: BLE001  # as graphql-core takes the failure of a resolver
            self.handle_field_error(exc, field.type, details, here)
            return None

    def _plan(self, parent_type: GraphQLObjectType, selected: GroupedFieldSet) -> SelectionPlan:
        plan = self.plans.get(id(selected))
        if plan is None:
            plan = self.plans[id(selected)] = self._new_plan(parent_type, selected)
        return plan

    def _new_plan(self, parent_type: GraphQLObjectType, selected: GroupedFieldSet) -> SelectionPlan:
        copied: list[CopiedField] = []
        called: list[CalledField] = []
        others: GroupedFieldSet = {}
        if self.middleware_manager and self.middleware_manager.middlewares:
            # Hooks of fields see every one.
            return SelectionPlan(selected, (), (), selected)
        for response_name, details in selected.items():
            field = self.schema.get_field(parent_type, details[0].node.name.value)
            definition = definition_of(field) if field else None
            if field is None or definition is None:
                others[response_name] = details
            elif copy := plan_copy(response_name, details, field, definition):
                copied.append(copy)
            elif call := self._plan_call(response_name, details, field, definition):
                called.append(call)
            else:
                others[response_name] = details
        return SelectionPlan(selected, tuple(copied), tuple(called), others)

    def _plan_call(
        self,
        response_name: str,
        details: FieldDetailsList,
        field: GraphQLField,
        definition: StrawberryField,
    ) -> CalledField | None:
        if not answers_at_once(field, definition) or not self.is_immediate(field.type, details):
            return None
        try:
            arguments = self._arguments(field, definition, details)
        except GraphQLError:
            # A null where none may be: graphql-core says so at each object.
            return None
        nodes = [each.node for each in details]
        return CalledField(response_name, field, details, nodes, call_with(definition, arguments))

    def _arguments(
        self, field: GraphQLField, definition: StrawberryField, details: FieldDetailsList
    ) -> Mapping[str, Any]:
        values = get_argument_values(
            field,
            details[0].node,
            self.variable_values,
            details[0].fragment_variable_values,
            self.hide_suggestions,
        )
        schema = self.schema._strawberry_schema  # type: ignore[attr-defined]  # noqa: SLF001  # where Strawberry finds it, too
        return convert_arguments(
            values,
            definition.arguments,
            scalar_registry=schema.schema_converter.scalar_registry,
            config=schema.config,
        )


async def _completed(results: dict[str, Any], others: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    return results | await others
