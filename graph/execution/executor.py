"""Executes operations as graphql-core does, with a fast path for fields that await nothing.

A tree of 2,000 instances with 8 fields and a URL each has 18,000 fields. Nearly all are attributes
that are copied, or methods that sign a URL. For each of them Strawberry and graphql-core read the
arguments, describe the field and look for awaitables, which takes 140 ms of processor time
(tests/benchmarks/README.md) and blocks the event loop. This executor plans a selection set once per
operation, which reduces the time to 52 ms, and completes long lists in turns of 5 ms, so that
other requests are answered in between. Fields without a fast path, and all invalid values, go
through graphql-core, so errors are the same.

It overrides methods that graphql-core does not document: pyproject.toml bounds its version,
`tests/test_private_interfaces.py` lists them, and `tests/graph/execution/test_executor.py` compares
the answers of both executors.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sized
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, cast

from graphql import (
    FieldNode,
    GraphQLError,
    GraphQLField,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLResolveInfo,
    Undefined,
    get_argument_values,
    get_named_type,
    get_nullable_type,
    is_introspection_type,
    is_leaf_type,
    is_object_type,
)
from graphql.execution.collect_fields import FieldDetailsList, GroupedFieldSet
from graphql.pyutils import AwaitableOrValue, Path
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.types.arguments import convert_arguments
from strawberry.types.field import StrawberryField
from strawberry.types.info import Info

from services.query.turns import CooperativeExecution

LONG_LIST = 32
"""Longer lists are completed in turns; shorter ones belong to their parent's turn."""


Call = Callable[[object, "GraphQLResolveInfo[Any]"], object]
"""Returns the value of a field of an object."""


class CopiedField(NamedTuple):
    """A leaf that is an attribute of its object; a tuple, because unpacking one is fast.

    Attributes:
        coerce: Serializes a value that is not None.
        is_required: Whether None is an error.
    """

    response_name: str
    attribute: str
    coerce: Callable[[Any], object]
    is_required: bool
    details: FieldDetailsList


@dataclass(frozen=True, slots=True)
class CalledField:
    """A field whose method awaits nothing and has the same arguments for all objects.

    Attributes:
        call: Calls the method.
        may_be_long: It may return a list, which is completed in turns if it is long.
    """

    response_name: str
    field: GraphQLField
    details: FieldDetailsList
    nodes: list[FieldNode]
    call: Call
    may_be_long: bool


@dataclass(frozen=True, slots=True)
class SelectionPlan:
    """How a selection set is executed.

    Attributes:
        selected: The whole set. It is kept, because plans are found by its identity.
        others: The fields without a fast path.
        objects: Single objects below it (parents, frames) at any depth; lists are counted when
            their length is known.
    """

    selected: GroupedFieldSet
    copied: tuple[CopiedField, ...]
    called: tuple[CalledField, ...]
    others: GroupedFieldSet
    objects: int


def definition_of(field: GraphQLField) -> StrawberryField | None:
    """Return the declaration of a field; None if it must not take the fast path.

    Fields with extensions must not: extensions check permissions at every call.
    """
    definition = field.extensions.get("strawberry-definition")
    if not isinstance(definition, StrawberryField) or definition.extensions:
        return None
    return definition


def plan_copy(
    response_name: str,
    details: FieldDetailsList,
    field: GraphQLField,
    definition: StrawberryField,
) -> CopiedField | None:
    """Plan a field that is an attribute and a leaf; None for other fields."""
    leaf = get_nullable_type(field.type)
    if not definition.is_basic_field or not is_leaf_type(leaf):
        return None
    return CopiedField(
        response_name,
        definition.python_name,
        leaf.coerce_output_value,
        isinstance(field.type, GraphQLNonNull),
        details,
    )


def answers_at_once(field: GraphQLField, definition: StrawberryField) -> bool:
    """Return whether a field is a method that awaits nothing and can't change its arguments."""
    resolver = definition.base_resolver
    return (
        resolver is not None
        and not definition.is_async
        and resolver.self_parameter is not None
        and resolver.root_parameter is None
        and resolver.parent_parameter is None
        and all(is_leaf_type(get_nullable_type(each.type)) for each in field.args.values())
    )


def call_with(definition: StrawberryField, arguments: Mapping[str, Any]) -> Call:
    """Return a function that calls the method of a field for which `answers_at_once`.

    Args:
        definition: The field.
        arguments: By the names of the method's parameters.
    """
    resolver = definition.base_resolver
    parameter = resolver.info_parameter if resolver else None

    def call(source: object, raw_info: "GraphQLResolveInfo[Any]") -> object:
        info: Info[Any, Any] = Info(_raw_info=raw_info, _field=definition)
        given = {**arguments, parameter.name: info} if parameter else {**arguments}
        return definition.get_result(source, info=info, args=[source], kwargs=given)

    return call


class PlanningExecutor(StrawberryGraphQLCoreExecutionContext):
    """Executes one operation, with planned selection sets and in turns with other requests."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Shared with the loaders, which wait until no field waits for its turn.
        shared = getattr(self.context_value, "turns", None)
        self._turns = shared or CooperativeExecution()
        self._plans: dict[int, SelectionPlan] = {}
        """By the identity of the selection set."""

    def build_per_event_executor(self, payload: object) -> Self:
        """Make the executor of one event of a subscription; its selection sets are new objects."""
        executor = cast("Self", super().build_per_event_executor(payload))
        executor._plans = {}  # noqa: SLF001  # of the same class
        # graphql-core's cache is by identity, too: if shared, it would grow with every event.
        executor._relevant_sub_fields = {}  # noqa: SLF001  # of the same class
        return executor

    async def complete_awaitable_value(  # noqa: PLR0917  # graphql-core's signature
        self,
        return_type: GraphQLOutputType,
        field_details_list: FieldDetailsList,
        info: "GraphQLResolveInfo[Any]",
        path: Path,
        result: Awaitable[Any],
        position_context: Any,  # noqa: ANN401  # of what is delivered later
    ) -> object:
        """Complete an awaited value in a turn: its siblings were loaded at the same time."""

        async def in_turn() -> object:
            value = await result
            await self._turns.yield_to_loop()
            return value

        return await super().complete_awaitable_value(
            return_type, field_details_list, info, path, in_turn(), position_context
        )

    def complete_iterable_value(  # noqa: PLR0917  # graphql-core's signature
        self,
        item_type: GraphQLOutputType,
        field_details_list: FieldDetailsList,
        info: "GraphQLResolveInfo[Any]",
        path: Path,
        items: Iterable[Any],
        position_context: Any,  # noqa: ANN401  # of what is delivered later
    ) -> AwaitableOrValue[list[Any]]:
        """Complete a list, in turns if it is long, after counting the objects below its items."""
        if isinstance(items, Sized):
            self._count_objects(item_type, field_details_list, len(items))
        if position_context is None and isinstance(items, Sized) and len(items) > LONG_LIST:
            return self._in_turns(item_type, field_details_list, info, path, items)
        return super().complete_iterable_value(
            item_type, field_details_list, info, path, items, position_context
        )

    async def _in_turns(
        self,
        item_type: GraphQLOutputType,
        details: FieldDetailsList,
        info: "GraphQLResolveInfo[Any]",
        path: Path,
        items: Iterable[Any],
    ) -> list[Any]:
        results: list[Any] = []
        awaited: list[asyncio.Future[Any]] = []
        indices: list[int] = []
        try:
            for index, item in enumerate(items):
                await self._turns.yield_to_loop()
                here = path.add_key(index, None)
                if self.complete_list_item_value(
                    item, results, item_type, details, info, here, None
                ):
                    indices.append(index)
                    awaited.append(asyncio.ensure_future(results[index]))
            values = await asyncio.gather(*awaited)
        except BaseException:
            for future in awaited:
                future.cancel()
            await asyncio.gather(*awaited, return_exceptions=True)
            raise
        for index, value in zip(indices, values, strict=True):
            results[index] = value
        return results

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
        if position_context is not None or not (plan.copied or plan.called):
            return super().execute_fields(
                parent_type, source_value, path, grouped_field_set, position_context
            )
        # All names first, so that the answer has the order of the query.
        results: dict[str, Any] = dict.fromkeys(grouped_field_set)
        self._copy(results, plan, parent_type, source_value, path)
        for called in plan.called:
            results[called.response_name] = self._call(called, parent_type, source_value, path)
        waiting = [
            called.response_name
            for called in plan.called
            if called.may_be_long and self.is_awaitable(results[called.response_name])
        ]
        if waiting:
            return self._complete_long(results, waiting, plan, parent_type, source_value, path)
        return self._with_others(results, plan, parent_type, source_value, path)

    def _copy(
        self,
        results: dict[str, Any],
        plan: SelectionPlan,
        parent_type: GraphQLObjectType,
        source_value: object,
        path: Path | None,
    ) -> None:
        for copied in plan.copied:
            name, attribute, coerce, is_required, details = copied
            try:
                value = getattr(source_value, attribute)
                if value is not None:
                    results[name] = coerced = coerce(value)
                    if coerced is not None and coerced is not Undefined:
                        continue
                    is_required = True
            except Exception:  # noqa: BLE001  # graphql-core raises it again, below
                is_required = True
            if is_required:
                here = Path(path, name, parent_type.name)
                results[name] = self.execute_field(parent_type, source_value, details, here, None)

    async def _complete_long(  # noqa: PLR0917  # as `execute_fields`
        self,
        results: dict[str, Any],
        waiting: Iterable[str],
        plan: SelectionPlan,
        parent_type: GraphQLObjectType,
        source_value: object,
        path: Path | None,
    ) -> dict[str, Any]:
        """Complete lists of methods that are too long for one turn, then the other fields."""
        for name in waiting:
            results[name] = await results[name]
        completed = self._with_others(results, plan, parent_type, source_value, path)
        return completed if isinstance(completed, dict) else await completed

    def _with_others(
        self,
        results: dict[str, Any],
        plan: SelectionPlan,
        parent_type: GraphQLObjectType,
        source_value: object,
        path: Path | None,
    ) -> AwaitableOrValue[dict[str, Any]]:
        """Add the fields without a fast path."""
        if not plan.others:
            return results
        others = super().execute_fields(parent_type, source_value, path, plan.others, None)
        return results | others if isinstance(others, dict) else _joined(results, others)

    def _count_objects(
        self, item_type: GraphQLOutputType, details: FieldDetailsList, items: int
    ) -> None:
        """Count the single objects below the items of a list, or raise `LimitExceeded`.

        If their resolvers counted them, 450,000 parents would be 450,000 tasks before the limit.
        """
        count_nodes = getattr(self.context_value, "count_nodes", None)
        if count_nodes is None:
            return
        below = self._plan_below(item_type, details)
        if below is not None and below.objects:
            count_nodes(items * below.objects)

    def _is_immediate(self, output_type: GraphQLOutputType, details: FieldDetailsList) -> bool:
        """Return whether a value and all values below it are complete without awaiting."""
        if is_leaf_type(get_named_type(output_type)):
            return True
        below = self._plan_below(output_type, details)
        return below is not None and not below.others

    def _plan_below(
        self, output_type: GraphQLOutputType, details: FieldDetailsList
    ) -> SelectionPlan | None:
        """Plan the selection set of a field; None if its type is not an object of our schema."""
        named = get_named_type(output_type)
        if not is_object_type(named) or is_introspection_type(named):
            return None
        try:
            selected = self.collect_subfields(named, details).grouped_field_set
        except GraphQLError:
            # A null in @skip or @include; graphql-core reports it at each object.
            return None
        return self._plan(named, selected)

    def _call(
        self, called: CalledField, parent_type: GraphQLObjectType, source: object, path: Path | None
    ) -> object:
        here = Path(path, called.response_name, parent_type.name)
        field, details = called.field, called.details
        info = self.build_resolve_info(field, called.nodes, parent_type, here)
        try:
            value = called.call(source, info)
            completed = self.complete_value(field.type, details, info, here, value, None)
        except Exception as exc:  # noqa: BLE001  # as graphql-core handles a failed resolver
            self.handle_field_error(exc, field.type, details, here)
            return None
        if called.may_be_long and self.is_awaitable(completed):
            return self._late(completed, called, here)
        return completed

    async def _late(self, completed: Awaitable[Any], called: CalledField, path: Path) -> object:
        try:
            return await completed
        except Exception as exc:  # noqa: BLE001  # as graphql-core handles a failed resolver
            self.handle_field_error(exc, called.field.type, called.details, path)
            return None

    def _plan(self, parent_type: GraphQLObjectType, selected: GroupedFieldSet) -> SelectionPlan:
        plan = self._plans.get(id(selected))
        if plan is None:
            plan = self._plans[id(selected)] = self._new_plan(parent_type, selected)
        return plan

    def _new_plan(self, parent_type: GraphQLObjectType, selected: GroupedFieldSet) -> SelectionPlan:
        copied: list[CopiedField] = []
        called: list[CalledField] = []
        others: GroupedFieldSet = {}
        objects = self._objects_of(parent_type, selected)
        if self.middleware_manager and self.middleware_manager.middlewares:
            # Hooks of fields must see every field.
            return SelectionPlan(selected, (), (), selected, objects)
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
        return SelectionPlan(selected, tuple(copied), tuple(called), others, objects)

    def _objects_of(self, parent_type: GraphQLObjectType, selected: GroupedFieldSet) -> int:
        count = 0
        for details in selected.values():
            field = self.schema.get_field(parent_type, details[0].node.name.value)
            if field is not None and is_object_type(get_nullable_type(field.type)):
                below = self._plan_below(field.type, details)
                count += 1 + (below.objects if below else 0)
        return count

    def _plan_call(
        self,
        response_name: str,
        details: FieldDetailsList,
        field: GraphQLField,
        definition: StrawberryField,
    ) -> CalledField | None:
        if not answers_at_once(field, definition) or not self._is_immediate(field.type, details):
            return None
        try:
            arguments = self._arguments(field, definition, details)
        except GraphQLError:
            # A null in a required argument; graphql-core reports it at each object.
            return None
        nodes = [each.node for each in details]
        return CalledField(
            response_name,
            field,
            details,
            nodes,
            call_with(definition, arguments),
            may_be_long=not is_leaf_type(get_nullable_type(field.type)),
        )

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
        schema = self.schema._strawberry_schema  # type: ignore[attr-defined]  # noqa: SLF001  # as Strawberry does
        return convert_arguments(
            values,
            definition.arguments,
            scalar_registry=schema.schema_converter.scalar_registry,
            config=schema.config,
        )


async def _joined(results: dict[str, Any], others: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    return results | await others
