"""Limits on operations, checked before validation: what is refused here costs next to nothing.

The hooks are those of the operation, never of fields: a hook per field makes a tree of 2,000
instances eight times slower.
"""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
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
    GraphQLSyntaxError,
    InlineFragmentNode,
    IntValueNode,
    Lexer,
    OperationDefinitionNode,
    SelectionNode,
    SelectionSetNode,
    Source,
    TokenKind,
    ValueNode,
    VariableNode,
    get_introspection_query,
    parse,
    specified_rules,
)
from strawberry.extensions import SchemaExtension
from strawberry.schema.schema import validate_document
from strawberry.types import ExecutionContext
from strawberry.types.graphql import OperationType

from graph.execution.introspection import (
    NO_COST,
    IntrospectionCost,
    IntrospectionSizes,
    introspection_sizes,
    total_cost,
)
from services.errors import LimitExceeded
from services.settings import Settings

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
        introspection: Fields that introspection can answer; all others count 1.
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
    """A selection set: its shape, and how many fields of each name stand side by side in it."""

    shape: QueryShape = QueryShape()
    names: Mapping[str, int] = field(default_factory=dict)


_STANDARD_INTROSPECTIONS = 2
"""Tools ask for the standard introspection once; what they add of their own has as much again."""


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
    # `frames` of an instance is a plain list and of a series a page: both count what they read.
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
        document: Parsed; its nesting is bounded by whoever parsed it.
        variables: Values as they were sent.
        sizes: Of the schema.

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
        return _Measuring(fragments, values, sizes).selection_set(definition.selection_set).shape
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
        # Validation tells the caller about fragments that are not there.
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
        introspection=total_cost(part.introspection for part in parts),
    )


_BRACKETS = re.compile(r'"""(?:[^\\]|\\.)*?"""|"(?:[^"\\\n]|\\.)*"|#[^\n]*|[][(){}]', re.DOTALL)
_OPENING = frozenset("[({")
_CACHED_DOCUMENTS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationLimits:
    """What one operation may be. What is no setting has its number here.

    Attributes:
        text_characters: Length of the query text.
        tokens: Names, values and punctuation in it.
        depth: Fields inside each other.
        aliases: Fields with an alias, fragments written out.
        root_fields: Fields of the operation itself, fragments written out.
        nodes: Objects that the answer may hold, by the page sizes that are asked for.
        seconds: Longest time of a query; uploads and subscriptions take as long as they take.
        nesting: Brackets inside each other; bounds the parser's recursion.
        introspection_depth: The same below `__schema`: client tools ask 15 levels.
        fields: All fields, fragments written out.
        repetitions: Fields of one name in one selection set: validation compares each pair.
        values: Values of the variables, lists and objects included.
    """

    text_characters: int
    tokens: int
    depth: int
    aliases: int
    root_fields: int
    nodes: int
    seconds: float
    nesting: int = 64
    introspection_depth: int = 16
    fields: int = 2_000
    repetitions: int = 40
    values: int = 5_000

    @classmethod
    def from_settings(cls, settings: Settings) -> "OperationLimits":
        """Take the limits that can be set."""
        return cls(
            text_characters=settings.query_max_characters,
            tokens=settings.query_max_tokens,
            depth=settings.query_max_depth,
            aliases=settings.query_max_aliases,
            root_fields=settings.query_max_root_fields,
            nodes=settings.query_max_nodes,
            seconds=settings.operation_seconds,
        )


class LimitedOperation(SchemaExtension):
    """Parses, limits and validates; remembers the last documents and what validation said.

    Args:
        limits: What is allowed.
    """

    def __init__(self, limits: OperationLimits) -> None:
        self._limits = limits

    async def on_operation(self) -> AsyncIterator[None]:
        """Start with nothing loaded and nothing counted, for whoever it is by now."""
        self.execution_context.context = await self.execution_context.context.for_operation()
        yield

    def on_parse(self) -> Iterator[None]:
        """Parse within the limits of text.

        Raises:
            LimitExceeded: The text is too long, too deep or has too many tokens.
        """
        query = self.execution_context.query
        if query:
            self.execution_context.graphql_document = parse_limited(query, self._limits)
        yield

    def on_validate(self) -> Iterator[None]:
        """Check the size of the operation, then validate.

        Raises:
            LimitExceeded: It is too large; validation did not see it.
        """
        context = self.execution_context
        document = context.graphql_document
        if document is not None:
            schema: GraphQLSchema = context.schema._schema  # noqa: SLF001  # where Strawberry keeps it
            check_variables(context.variables, self._limits)
            check_document(document, context.variables, schema_sizes(schema), self._limits)
            context.pre_execution_errors = [
                *_validated(schema, context.query or "", self._limits.tokens),
                *_unnamed(context, document),
            ]
        yield

    async def on_execute(self) -> AsyncIterator[None]:
        """Cut queries that take too long.

        Raises:
            LimitExceeded: Time is up.
        """
        is_query = self.execution_context.operation_type is OperationType.QUERY
        try:
            async with asyncio.timeout(self._limits.seconds if is_query else None):
                yield
        except TimeoutError as exc:
            raise LimitExceeded(
                f"The query took longer than {self._limits.seconds:g} seconds. Ask for less."
            ) from exc


def _unnamed(context: ExecutionContext, document: DocumentNode) -> Iterator[GraphQLError]:
    """Refuse to choose among operations (GraphQL specification, 6.1); Strawberry runs the first."""
    operations = [d for d in document.definitions if isinstance(d, OperationDefinitionNode)]
    if len(operations) > 1 and context._provided_operation_name is None:  # noqa: SLF001  # the public name is that of the first
        yield GraphQLError("Say in `operationName` which of the operations is to run.", operations)


def parse_limited(text: str, limits: OperationLimits) -> DocumentNode:
    """Parse a query text that is within its limits; the last ones are remembered.

    Raises:
        LimitExceeded: It is too long, too deeply nested or has too many tokens.
        GraphQLError: It is no GraphQL.
    """
    check_text(text, limits)
    return _parsed(text, limits.tokens)


def check_text(text: str, limits: OperationLimits) -> None:
    """Check a query text before it is parsed.

    Raises:
        LimitExceeded: It is too long or too deeply nested.
    """
    _check("characters", len(text), limits.text_characters)
    _check("brackets inside each other", _nesting(text), limits.nesting)


def check_variables(variables: Mapping[str, Any] | None, limits: OperationLimits) -> None:
    """Check the values that came with a query, before they are coerced one by one.

    Raises:
        LimitExceeded: There are too many.
    """
    count = 0
    waiting: list[object] = [variables]
    while waiting and count <= limits.values:
        value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        count += isinstance(value, _JSON_TYPES)
    if count > limits.values:
        raise LimitExceeded(f"The variables have too many values; {limits.values} are allowed.")


_JSON_TYPES = (str, int, float, Mapping, list, type(None))
"""What counts as a value of variables; files of an upload have a limit of their own."""


def check_document(
    document: DocumentNode,
    variables: Mapping[str, Any] | None,
    sizes: SchemaSizes,
    limits: OperationLimits,
) -> None:
    """Check everything in a document: validation reads also what is not going to run.

    Raises:
        LimitExceeded: Says what there is too much of.
        GraphQLError: A fragment contains itself.
    """
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode):
            shape = measure(definition, document, variables, sizes)
            check_shape(shape, limits)
            if shape.introspection_depth:
                _check(
                    "fields of introspection to answer",
                    shape.introspection.largest,
                    sizes.introspection_allowed,
                )
        elif isinstance(definition, FragmentDefinitionNode):
            shape = measure(definition, document, variables, sizes)
            # Depth counts where a fragment is used: that of a type below __schema may be large.
            check_shape(replace(shape, width=0, depth=0), limits)


def check_shape(shape: QueryShape, limits: OperationLimits) -> None:
    """Check an operation before it is validated.

    Raises:
        LimitExceeded: Says what there is too much of.
    """
    _check("fields inside each other", shape.depth, limits.depth)
    _check(
        "fields of introspection inside each other",
        shape.introspection_depth,
        limits.introspection_depth,
    )
    _check("aliases", shape.aliases, limits.aliases)
    _check("root fields", shape.width, limits.root_fields)
    _check("fields", shape.fields, limits.fields)
    _check("fields of one name side by side", shape.repetitions, limits.repetitions)
    _check("objects to answer, by `first` and `last`", shape.nodes, limits.nodes)


def _check(what: str, found: int, allowed: int) -> None:
    if found > allowed:
        # The true number may have hundreds of digits: fragments multiply.
        counted = found if found < 10 * allowed else "far too many"
        raise LimitExceeded(f"The query has {counted} {what}; {allowed} are allowed.")


def _nesting(text: str) -> int:
    deepest = level = 0
    for match in _BRACKETS.finditer(text):
        bracket = match[0]
        if bracket in _OPENING:
            level += 1
            deepest = max(deepest, level)
        elif len(bracket) == 1 and bracket != "#":
            level -= 1
    return deepest


@lru_cache(maxsize=_CACHED_DOCUMENTS)
def _parsed(text: str, max_tokens: int) -> DocumentNode:
    try:
        return parse(text, max_tokens=max_tokens)
    except GraphQLSyntaxError as exc:
        if not _has_more_tokens(text, max_tokens):
            raise
        message = f"The query has too many tokens; {max_tokens} are allowed."
        raise LimitExceeded(message) from exc


def _has_more_tokens(text: str, limit: int) -> bool:
    """Tell whether it was for their number that the parser stopped: its error has no code."""
    lexer = Lexer(Source(text))
    count = 0
    try:
        while count <= limit and lexer.token.kind is not TokenKind.EOF:
            token = lexer.advance()
            # The parser counts comments, too; the lexer passes over them.
            one = lexer.last_token.next
            while one is not None and one is not token:
                count, one = count + 1, one.next
            count += token.kind is not TokenKind.EOF
    except GraphQLSyntaxError:
        return False
    return count > limit


@lru_cache(maxsize=_CACHED_DOCUMENTS)
def _validated(schema: GraphQLSchema, text: str, max_tokens: int) -> tuple[GraphQLError, ...]:
    return tuple(validate_document(schema, _parsed(text, max_tokens), tuple(specified_rules)))
