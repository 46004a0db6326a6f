"""Limits of operations, checked before validation, so that refusing one costs almost nothing.

Extensions only use hooks of the operation: a hook of fields makes a tree of 2,000 instances eight
times slower.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from graphql import (
    DocumentNode,
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLSchema,
    GraphQLSyntaxError,
    Lexer,
    OperationDefinitionNode,
    Source,
    TokenKind,
    parse,
    specified_rules,
)
from strawberry.extensions import SchemaExtension
from strawberry.schema.schema import validate_document
from strawberry.types import ExecutionContext
from strawberry.types.graphql import OperationType

from graph.execution.query_shape import QueryShape, SchemaSizes, measure, schema_sizes
from services.errors import LimitExceeded
from services.settings import Settings

_BRACKETS = re.compile(r'"""(?:[^\\]|\\.)*?"""|"(?:[^"\\\n]|\\.)*"|#[^\n]*|[][(){}]', re.DOTALL)
_OPENING = frozenset("[({")
_CACHED_DOCUMENTS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationLimits:
    """Limits of one operation. Those that are not settings have their value here.

    Attributes:
        text_characters: Length of the query text.
        tokens: Names, values and punctuation in it.
        depth: Levels of nested fields.
        aliases: Fields with an alias, with all fragments expanded.
        root_fields: Fields of the operation itself, with all fragments expanded.
        nodes: Objects that the answer may have, by the requested page sizes.
        seconds: Longest duration of a query; uploads and subscriptions have no limit.
        nesting: Levels of nested brackets; bounds the parser's recursion.
        introspection_depth: Depth below `__schema`: client tools request 15 levels.
        fields: All fields, with all fragments expanded.
        repetitions: Fields with one name in one selection set: validation compares each pair.
        values: Values of the variables, including lists and objects.
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
        """Make the limits with those that are settings."""
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
    """Parses, limits and validates; caches recent documents and their validation errors.

    Args:
        limits: What is allowed.
    """

    def __init__(self, limits: OperationLimits) -> None:
        self._limits = limits

    async def on_operation(self) -> AsyncIterator[None]:
        """Reset loaders and counts, and authenticate the caller again."""
        self.execution_context.context = await self.execution_context.context.for_operation()
        yield

    def on_parse(self) -> Iterator[None]:
        """Parse the text within its limits.

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
            LimitExceeded: The operation is too large; it was not validated.
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
        """Cancel queries that take too long.

        Raises:
            LimitExceeded: The query took too long.
        """
        is_query = self.execution_context.operation_type is OperationType.QUERY
        try:
            async with asyncio.timeout(self._limits.seconds if is_query else None) as limit:
                self.execution_context.context.time_limit = limit
                yield
        except TimeoutError as exc:
            raise LimitExceeded(
                f"The query took longer than {self._limits.seconds:g} seconds. Ask for less."
            ) from exc


def _unnamed(context: ExecutionContext, document: DocumentNode) -> Iterator[GraphQLError]:
    """Refuse several operations without a name (GraphQL 6.1); Strawberry would run the first."""
    operations = [d for d in document.definitions if isinstance(d, OperationDefinitionNode)]
    if len(operations) > 1 and context._provided_operation_name is None:  # noqa: SLF001  # the public name is that of the first
        yield GraphQLError("Set `operationName` to the operation that should run.", operations)


def parse_limited(text: str, limits: OperationLimits) -> DocumentNode:
    """Parse a query text that is within its limits; recent ones are cached.

    Raises:
        LimitExceeded: It is too long, too deeply nested or has too many tokens.
        GraphQLError: A syntax error.
    """
    check_text(text, limits)
    return _parsed(text, limits.tokens)


def check_text(text: str, limits: OperationLimits) -> None:
    """Check a query text before it is parsed.

    Raises:
        LimitExceeded: It is too long or too deeply nested.
    """
    _check("characters", len(text), limits.text_characters)
    _check("levels of brackets", _nesting(text), limits.nesting)


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
"""The types that count as values of variables; the files of an upload have their own limit."""


def check_document(
    document: DocumentNode,
    variables: Mapping[str, Any] | None,
    sizes: SchemaSizes,
    limits: OperationLimits,
) -> None:
    """Check all operations and fragments of a document, because validation reads all of them.

    Raises:
        LimitExceeded: With what exceeds its limit.
        GraphQLError: A fragment contains itself.
    """
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode):
            shape = measure(definition, document, variables, sizes)
            check_shape(shape, limits)
            if shape.introspection_depth:
                _check(
                    "fields in the answer of introspection",
                    shape.introspection.largest,
                    sizes.introspection_allowed,
                )
        elif isinstance(definition, FragmentDefinitionNode):
            shape = measure(definition, document, variables, sizes)
            # Depth is checked in operations only: fragments below __schema may be deep.
            check_shape(replace(shape, width=0, depth=0), limits)


def check_shape(shape: QueryShape, limits: OperationLimits) -> None:
    """Check an operation before it is validated.

    Raises:
        LimitExceeded: With what exceeds its limit.
    """
    _check("levels of fields", shape.depth, limits.depth)
    _check(
        "levels of introspection fields",
        shape.introspection_depth,
        limits.introspection_depth,
    )
    _check("aliases", shape.aliases, limits.aliases)
    _check("root fields", shape.width, limits.root_fields)
    _check("fields", shape.fields, limits.fields)
    _check("fields with one name in one selection set", shape.repetitions, limits.repetitions)
    _check("objects in the answer, by `first` and `last`", shape.nodes, limits.nodes)


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
    """Return whether there are too many tokens; the parser's error can't be distinguished."""
    lexer = Lexer(Source(text))
    count = 0
    try:
        while count <= limit and lexer.token.kind is not TokenKind.EOF:
            token = lexer.advance()
            # The parser also counts comments, which the lexer skips.
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
