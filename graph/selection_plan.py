"""What is the same for all objects of a selection set, found out once per operation.

Two kinds of fields have a short way: attributes that are copied, and methods that answer at once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from graphql import (
    FieldNode,
    GraphQLField,
    GraphQLNonNull,
    GraphQLResolveInfo,
    get_nullable_type,
    is_leaf_type,
)
from graphql.execution.collect_fields import FieldDetailsList, GroupedFieldSet
from strawberry.types.field import StrawberryField
from strawberry.types.info import Info

Call = Callable[[object, "GraphQLResolveInfo[Any]"], object]
"""Answers a field of an object."""


class CopiedField(NamedTuple):
    """A leaf that is an attribute of its object; a tuple, since loops unpack it.

    Attributes:
        coerce: Turns a value that is there into what is answered.
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
    """

    response_name: str
    field: GraphQLField
    details: FieldDetailsList
    nodes: list[FieldNode]
    call: Call


@dataclass(frozen=True, slots=True)
class SelectionPlan:
    """How a selection set is executed.

    Attributes:
        selected: The whole set. A plan is found by its identity: it must live as long.
        others: The part that has no short way.
    """

    selected: GroupedFieldSet
    copied: tuple[CopiedField, ...]
    called: tuple[CalledField, ...]
    others: GroupedFieldSet

    @property
    def is_plain(self) -> bool:
        """Whether nothing has a short way."""
        return not self.copied and not self.called


def definition_of(field: GraphQLField) -> StrawberryField | None:
    """Return how a field was declared; None when it may not have a short way.

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
    """Tell whether a field is a method that awaits nothing and can't change its arguments."""
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
