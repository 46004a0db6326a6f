"""What a query would cost, measured on its document before it is validated.

Every fragment is measured once, however often it is spread: a few hundred bytes of nested spreads
stand for millions of fields, and walking those is what an attacker wants.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionNode,
    SelectionSetNode,
    ValueNode,
    VariableNode,
)

from services.errors import LimitExceeded

_PAGE_ARGUMENTS = ("first", "last")

_INT_CHARACTERS = 11
"""A sign and ten digits."""


@dataclass(frozen=True, slots=True)
class QueryShape:
    """Size of a selection with all its fragments written out.

    Attributes:
        depth: Fields inside each other, a leaf counts 1; without introspection.
        introspection_depth: The same below `__schema` and `__type`.
        aliases: Fields with an alias.
        fields: All fields.
        width: Fields side by side at the top.
        repetitions: Most fields of one name in one selection set, fragments written out.
        nodes: Objects that can be answered, by the page sizes that are asked for; a plain list
            counts 1, for its parent knows its length and counts it before it is read.
    """

    depth: int = 0
    introspection_depth: int = 0
    aliases: int = 0
    fields: int = 0
    width: int = 0
    repetitions: int = 0
    nodes: int = 0


@dataclass(frozen=True, slots=True)
class _Measured:
    """A selection set: its shape, and how many fields of each name stand side by side in it."""

    shape: QueryShape = QueryShape()
    names: Mapping[str, int] = field(default_factory=dict)


@lru_cache(maxsize=4)
def default_page_sizes(schema: GraphQLSchema) -> Mapping[str, int]:
    """Return the default of `first` by field name; of several fields of a name the largest."""
    sizes: dict[str, int] = {}
    for graphql_type in schema.type_map.values():
        for name, described in getattr(graphql_type, "fields", {}).items():
            first = getattr(described, "args", {}).get("first")
            if first is not None and isinstance(first.default_value, int):
                sizes[name] = max(sizes.get(name, 0), first.default_value)
    return sizes


def measure(
    definition: OperationDefinitionNode | FragmentDefinitionNode,
    document: DocumentNode,
    variables: Mapping[str, Any] | None,
    page_sizes: Mapping[str, int],
) -> QueryShape:
    """Measure an operation or a fragment.

    Args:
        definition: One of `document`.
        document: Parsed; its nesting is bounded by whoever parsed it.
        variables: Values as they were sent.
        page_sizes: Page size of each connection without being asked, by the field's name.

    Raises:
        GraphQLError: A fragment contains itself.
        LimitExceeded: Fragments lie too deep inside each other to be followed.
    """
    fragments = {
        definition.name.value: definition
        for definition in document.definitions
        if isinstance(definition, FragmentDefinitionNode)
    }
    values = _defaults(definition) | dict(variables or {})
    try:
        return (
            _Measuring(fragments, values, page_sizes).selection_set(definition.selection_set).shape
        )
    except RecursionError as exc:
        raise LimitExceeded("The query has too many fragments inside each other.") from exc


def _defaults(
    definition: OperationDefinitionNode | FragmentDefinitionNode,
) -> dict[str, Any]:
    return {
        variable.variable.name.value: _integer(variable.default_value)
        for variable in definition.variable_definitions or ()
        if isinstance(variable.default_value, IntValueNode)
    }


@dataclass(slots=True)
class _Measuring:
    fragments: Mapping[str, FragmentDefinitionNode]
    variables: Mapping[str, Any]
    page_sizes: Mapping[str, int]
    measured: dict[str, _Measured] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)

    def selection_set(self, selections: SelectionSetNode | None) -> _Measured:
        if selections is None:
            return _Measured()
        parts = [self.selection(selection) for selection in selections.selections]
        names: Counter[str] = Counter()
        for part in parts:
            names.update(part.names)
        shapes = [part.shape for part in parts]
        return _Measured(_joined(shapes, max(names.values(), default=0)), names)

    def selection(self, selection: SelectionNode) -> _Measured:
        if isinstance(selection, FieldNode):
            return _Measured(self.field(selection), {selection.name.value: 1})
        if isinstance(selection, FragmentSpreadNode):
            return self.fragment(selection.name.value)
        if isinstance(selection, InlineFragmentNode):
            return self.selection_set(selection.selection_set)
        return _Measured()

    def field(self, node: FieldNode) -> QueryShape:
        below = self.selection_set(node.selection_set).shape
        depth = 1 + max(below.depth, below.introspection_depth)
        is_introspection = node.name.value in ("__schema", "__type")
        has_objects = node.selection_set is not None and not is_introspection
        return QueryShape(
            depth=0 if is_introspection else depth,
            introspection_depth=depth if is_introspection else 0,
            aliases=below.aliases + (node.alias is not None),
            fields=below.fields + 1,
            width=1,
            repetitions=below.repetitions,
            nodes=self.page_size(node) * (1 + below.nodes) if has_objects else 0,
        )

    def fragment(self, name: str) -> _Measured:
        if name in self.open:
            raise GraphQLError(f"Cannot spread fragment '{name}' within itself.")
        # Validation tells the caller about fragments that are not there.
        if name not in self.fragments:
            return _Measured()
        if name not in self.measured:
            self.open.add(name)
            self.measured[name] = self.selection_set(self.fragments[name].selection_set)
            self.open.remove(name)
        return self.measured[name]

    def page_size(self, node: FieldNode) -> int:
        if node.name.value not in self.page_sizes:
            return 1
        asked = [
            self.integer(argument.value)
            for argument in node.arguments or ()
            if argument.name.value in _PAGE_ARGUMENTS
        ]
        given = [size for size in asked if size is not None]
        return max(given) if given else self.page_sizes[node.name.value]

    def integer(self, node: ValueNode) -> int | None:
        value: object = None
        if isinstance(node, IntValueNode):
            value = _integer(node)
        elif isinstance(node, VariableNode):
            value = self.variables.get(node.name.value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return max(value, 0) if isinstance(value, int) else None


def _integer(node: IntValueNode) -> int:
    # Int has 32 bits; longer digits are refused by validation, and Python refuses to read 4,301.
    return int(node.value[:_INT_CHARACTERS])


def _joined(parts: Sequence[QueryShape], repetitions: int) -> QueryShape:
    return QueryShape(
        depth=max((part.depth for part in parts), default=0),
        introspection_depth=max((part.introspection_depth for part in parts), default=0),
        aliases=sum(part.aliases for part in parts),
        fields=sum(part.fields for part in parts),
        width=sum(part.width for part in parts),
        repetitions=max(repetitions, *(part.repetitions for part in parts)),
        nodes=sum(part.nodes for part in parts),
    )
