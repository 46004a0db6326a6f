"""The size of an operation: depth, aliases, fields and nodes, with all fragments expanded.

It is measured in one pass, each fragment once, however often it is spread: expanded, 734 bytes of
nested spreads have more fields than can be counted one by one.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
    get_introspection_query,
    parse,
)

from graph.execution.introspection import (
    NO_COST,
    IntrospectionCost,
    IntrospectionSizes,
    introspection_sizes,
    total_cost,
)
from services.errors import LimitExceeded

_PAGE_ARGUMENTS = ("first", "last")

_INT_CHARACTERS = 11
"""A sign and ten digits."""


@dataclass(frozen=True, slots=True)
class QueryShape:
    """Size of a selection with all fragments expanded.

    Attributes:
        depth: Levels of fields without introspection; a leaf counts 1.
        introspection_depth: Levels of fields below `__schema` and `__type`.
        aliases: Fields with an alias.
        fields: All fields.
        width: Fields at the top level.
        repetitions: Most fields with one name in one selection set.
        nodes: Objects that the answer can have, by the requested page sizes; a plain list counts 1,
            because its length is counted before it is read.
        introspection: Fields in the answer of introspection; other fields count 1.
    """

    depth: int = 0
    introspection_depth: int = 0
    aliases: int = 0
    fields: int = 0
    width: int = 0
    repetitions: int = 0
    nodes: int = 0
    introspection: IntrospectionCost = NO_COST


@dataclass(frozen=True, slots=True)
class SchemaSizes:
    """What the cost of a query depends on besides its text.

    Attributes:
        pages: Page size of each connection without being asked, by the field's name; of several
            fields of a name the largest.
        introspection: Lengths of the lists of introspection.
        introspection_allowed: Largest cost of introspection.
    """

    pages: Mapping[str, int] = field(default_factory=dict)
    introspection: IntrospectionSizes = field(default_factory=IntrospectionSizes)
    introspection_allowed: int = 0


@dataclass(frozen=True, slots=True)
class _Measured:
    """A selection set: its shape, and how many of its fields have each name."""

    shape: QueryShape = QueryShape()
    names: Mapping[str, int] = field(default_factory=dict)


_STANDARD_INTROSPECTIONS = 2
"""Tools send the standard introspection query once; additions may be as large as it is."""


@lru_cache(maxsize=4)
def schema_sizes(schema: GraphQLSchema) -> SchemaSizes:
    """Measure a schema."""
    pages: dict[str, int] = {}
    plain: set[str] = set()
    for graphql_type in schema.type_map.values():
        for name, described in getattr(graphql_type, "fields", {}).items():
            first = getattr(described, "args", {}).get("first")
            if first is not None and isinstance(first.default_value, int):
                pages[name] = max(pages.get(name, 0), first.default_value)
            elif first is not None:
                plain.add(name)
    # `frames` is a plain list of an instance and a page of a series; resolvers count both.
    pages = {name: size for name, size in pages.items() if name not in plain}
    sizes = SchemaSizes(pages, introspection_sizes(schema))
    document = parse(_STANDARD_INTROSPECTION)
    [operation] = (d for d in document.definitions if isinstance(d, OperationDefinitionNode))
    cost = measure(operation, document, None, sizes).introspection
    return replace(sizes, introspection_allowed=_STANDARD_INTROSPECTIONS * cost.largest)


_STANDARD_INTROSPECTION = get_introspection_query(
    specified_by_url=True,
    directive_is_repeatable=True,
    schema_description=True,
    input_value_deprecation=True,
)


def measure(
    definition: OperationDefinitionNode | FragmentDefinitionNode,
    document: DocumentNode,
    variables: Mapping[str, Any] | None,
    sizes: SchemaSizes,
) -> QueryShape:
    """Measure an operation or a fragment.

    Args:
        definition: One of `document`.
        document: Parsed; the caller has bounded its nesting.
        variables: Values as sent.
        sizes: Of the schema.

    Raises:
        GraphQLError: A fragment contains itself.
        LimitExceeded: Fragments are nested too deeply.
    """
    fragments = {
        definition.name.value: definition
        for definition in document.definitions
        if isinstance(definition, FragmentDefinitionNode)
    }
    values = _defaults(definition) | dict(variables or {})
    try:
        return _Measuring(fragments, values, sizes).selection_set(definition.selection_set).shape
    except RecursionError as exc:
        raise LimitExceeded("The query has too many levels of fragments.") from exc


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
    sizes: SchemaSizes
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
            introspection=self.sizes.introspection.cost_of(node.name.value, below.introspection),
        )

    def fragment(self, name: str) -> _Measured:
        if name in self.open:
            raise GraphQLError(f"Cannot spread fragment '{name}' within itself.")
        # Validation reports missing fragments.
        if name not in self.fragments:
            return _Measured()
        if name not in self.measured:
            self.open.add(name)
            self.measured[name] = self.selection_set(self.fragments[name].selection_set)
            self.open.remove(name)
        return self.measured[name]

    def page_size(self, node: FieldNode) -> int:
        if node.name.value not in self.sizes.pages:
            return 1
        asked = [
            self.integer(argument.value)
            for argument in node.arguments or ()
            if argument.name.value in _PAGE_ARGUMENTS
        ]
        given = [size for size in asked if size is not None]
        return max(given) if given else self.sizes.pages[node.name.value]

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
    # An Int has 32 bits: validation refuses more digits, and Python can't read 4,301 of them.
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
        introspection=total_cost(part.introspection for part in parts),
    )
