"""Executes operations as graphql-core does, with a fast path for fields that await nothing.

A tree of 2,000 instances with 8 fields and a URL each has 18,000 fields: nearly all are attributes
that are copied and methods that sign a URL. Strawberry and graphql-core read arguments, describe
the field and look for awaitables again for each of them, which takes 140 ms of processor time here
(tests/benchmarks/README.md), and blocks the event loop. Here a selection set is
planned once per operation, which brings it to 52 ms, and long lists are completed in turns of 10 ms
with other requests. Fields without a fast path, and all values at fault, go through graphql-core:
errors are its errors.

It overrides methods of graphql-core that are not part of its documented interface: pyproject.toml
bounds its version, `tests/graph/execution/test_private_interfaces.py` names each, and
`test_executor.py` holds both executors against the same answers.
"""

import asyncio
from abc import ABC, abstractmethod
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
"""Longer lists are completed in turns; shorter ones are a part of their parent's turn."""


class CooperativeExecutionContext(StrawberryGraphQLCoreExecutionContext, ABC):
    """Executes one operation, and completes long lists in turns with other requests."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Shared with the loaders: these wait until all siblings have said what they need.
        shared = getattr(self.context_value, "turns", None)
        self._turns = shared or CooperativeExecution()

    @abstractmethod
    def count_objects(
        self, item_type: GraphQLOutputType, details: FieldDetailsList, items: int
    ) -> None:
        """Count the single objects below the items of a list, or refuse them."""

    async def complete_awaitable_value(  # noqa: PLR0917  # graphql-core's signature
        self,
        return_type: GraphQLOutputType,
        field_details_list: FieldDetailsList,
        info: "GraphQLResolveInfo[Any]",
        path: Path,
        result: Awaitable[Any],
        position_context: Any,  # noqa: ANN401  # of what is delivered later
    ) -> object:
        """Complete an awaited value in its turn: its siblings were loaded with it."""

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
        """Complete a list, in turns where it is long; what is below it is counted before."""
        if isinstance(items, Sized):
            self.count_objects(item_type, field_details_list, len(items))
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


Call = Callable[[object, "GraphQLResolveInfo[Any]"], object]
"""Answers a field of an object."""


class CopiedField(NamedTuple):
    """A leaf that is an attribute of its object; a tuple, since loops unpack it.

    Attributes:
        coerce: Turns a value that is not None into what is answered.
        is_required: None is an error.
    """

    response_name: str
    attribute: str
    coerce: Callable[[Any], object]
    is_required: bool
    details: FieldDetailsList


@dataclass(frozen=True, slots=True)
class CalledField:
    """A field whose method answers at once, with the same arguments for all objects.

    Attributes:
        call: Calls the method.
        may_be_long: It answers a list, which is completed in turns when it is long.
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
        selected: The whole set. A plan is found by its identity: it must live as long.
        others: The part that has no fast path.
        objects: Single objects below it (parents, frames), however deep; lists count themselves.
    """

    selected: GroupedFieldSet
    copied: tuple[CopiedField, ...]
    called: tuple[CalledField, ...]
    others: GroupedFieldSet
    objects: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether nothing has a fast path."""
        return not self.copied and not self.called


def definition_of(field: GraphQLField) -> StrawberryField | None:
    """Return how a field was declared; None when it must not take the fast path.

    Extensions check rights: they see every call.
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
    """Plan a field that is an attribute and a leaf; None for others."""
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
    """Make the call of a method that `answers_at_once`.

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


class PlanningExecutor(CooperativeExecutionContext):
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
        self._copy(results, plan, parent_type, source_value, path)
        for called in plan.called:
            results[called.response_name] = self._call(called, parent_type, source_value, path)
        waiting = [
            called.response_name
            for called in plan.called
            if called.may_be_long and self.is_awaitable(results[called.response_name])
        ]
        if waiting:
            return self._complete_all(results, waiting, plan, parent_type, source_value, path)
        if not plan.others:
            return results
        others = super().execute_fields(
            parent_type, source_value, path, plan.others, position_context
        )
        if self.is_awaitable(others):
            return _completed(results, others)
        return results | cast("dict[str, Any]", others)

    def _copy(
        self,
        results: dict[str, Any],
        plan: SelectionPlan,
        parent_type: GraphQLObjectType,
        source_value: object,
        path: Path | None,
    ) -> None:
        for copied in plan.copied:
            name, attribute, coerce, is_required, _ = copied
            try:
                value = getattr(source_value, attribute)
                if value is not None:
                    results[name] = coerced = coerce(value)
                    if coerced is not None and coerced is not Undefined:
                        continue
                    is_required = True
            except Exception:  # noqa: BLE001  # graphql-core reports it
                is_required = True
            if is_required:
                results[name] = self._at_length(copied, parent_type, source_value, path)

    async def _complete_all(  # noqa: PLR0917  # what `execute_fields` knows
        self,
        results: dict[str, Any],
        waiting: Iterable[str],
        plan: SelectionPlan,
        parent_type: GraphQLObjectType,
        source_value: object,
        path: Path | None,
    ) -> dict[str, Any]:
        """Complete lists that methods answered and that are too long for one turn."""
        for name in waiting:
            results[name] = await results[name]
        if not plan.others:
            return results
        others = super().execute_fields(parent_type, source_value, path, plan.others, None)
        if self.is_awaitable(others):
            others = await others
        return results | cast("dict[str, Any]", others)

    def count_objects(
        self, item_type: GraphQLOutputType, details: FieldDetailsList, items: int
    ) -> None:
        """Count the single objects below the items of a list, or refuse them.

        Counted by their resolvers, 450,000 parents would be 450,000 tasks before one is too many.
        """
        count_nodes = getattr(self.context_value, "count_nodes", None)
        if count_nodes is not None and (below := self._objects_below(item_type, details)):
            count_nodes(items * below)

    def _objects_below(self, output_type: GraphQLOutputType, details: FieldDetailsList) -> int:
        named = get_named_type(output_type)
        if not is_object_type(named) or is_introspection_type(named):
            return 0
        try:
            selected = self.collect_subfields(named, details).grouped_field_set
        except GraphQLError:
            # A null in @skip or @include: graphql-core says so at each object.
            return 0
        return self._plan(named, selected).objects

    def is_immediate(self, output_type: GraphQLOutputType, details: FieldDetailsList) -> bool:
        """Return whether a value and all below it are complete without awaiting."""
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
            completed = self.complete_value(field.type, details, info, here, value, None)
        except Exception as exc:  # noqa: BLE001  # as graphql-core takes the failure of a resolver
            self.handle_field_error(exc, field.type, details, here)
            return None
        if called.may_be_long and self.is_awaitable(completed):
            return self._late(completed, called, here)
        return completed

    async def _late(self, completed: Awaitable[Any], called: CalledField, path: Path) -> object:
        try:
            return await completed
        except Exception as exc:  # noqa: BLE001  # as graphql-core takes the failure of a resolver
            self.handle_field_error(exc, called.field.type, called.details, path)
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
        objects = self._objects_of(parent_type, selected)
        if self.middleware_manager and self.middleware_manager.middlewares:
            # Hooks of fields see every one.
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
                count += 1 + self._objects_below(field.type, details)
        return count

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
        schema = self.schema._strawberry_schema  # type: ignore[attr-defined]  # noqa: SLF001  # where Strawberry finds it, too
        return convert_arguments(
            values,
            definition.arguments,
            scalar_registry=schema.schema_converter.scalar_registry,
            config=schema.config,
        )


async def _completed(results: dict[str, Any], others: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    return results | await others
