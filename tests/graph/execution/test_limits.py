"""What attackers send is refused before it is validated; what viewers send is not."""

import asyncio
from dataclasses import replace
from typing import Self

import pytest
import strawberry
from graphql import (
    GraphQLError,
    execute_sync,
    get_introspection_query,
    get_operation_ast,
    parse,
)

from graph.execution.introspection import IntrospectionCost
from graph.execution.limits import (
    LimitedOperation,
    OperationLimits,
    check_document,
    check_text,
    check_variables,
    parse_limited,
)
from graph.execution.query_shape import QueryShape, SchemaSizes, measure, schema_sizes
from graph.schema import build_schema
from services.errors import LimitExceeded
from services.settings import Settings

SIZES = SchemaSizes({"studies": 20, "patients": 20}, introspection_allowed=1_000_000)
SCHEMA = build_schema()._schema
LIMITS = OperationLimits.from_settings(Settings.model_construct())


def shape(query: str, variables: dict[str, object] | None = None) -> QueryShape:
    document = parse(query)
    operation = get_operation_ast(document)
    assert operation is not None
    return measure(operation, document, variables, SIZES)


def refuse(query: str) -> str:
    with pytest.raises(LimitExceeded) as raised:
        check(query)
    return raised.value.message


def check(query: str) -> None:
    check_text(query, LIMITS)
    check_document(parse(query), None, SIZES, LIMITS)


def nested_fragments(count: int) -> str:
    fragments = [f"fragment f{n} on Study{{...f{n + 1} ...f{n + 1}}}" for n in range(count)]
    return "{studies{nodes{...f0}}}" + "".join(fragments) + f"fragment f{count} on Study{{id}}"


def test_a_shape_counts_what_fragments_stand_for() -> None:
    query = """
      query ($n: Int = 7) {
        a: studies(first: 10) { nodes { ...s } }
        patients { nodes { studies(first: $n) { nodes { ...s ...s } } } }
      }
      fragment s on Study { x: id series { id } }
    """
    assert shape(query) == QueryShape(
        depth=6,
        aliases=4,
        fields=15,
        width=2,
        repetitions=2,
        nodes=10 * (1 + 1 * (1 + 1)) + 20 * (1 + 1 * (1 + 7 * (1 + 1 * (1 + 2)))),
        introspection=IntrospectionCost(typical=15, largest=15),
    )


def test_a_variable_counts_with_the_value_that_was_sent() -> None:
    query = "query ($n: Int = 7) { studies(first: $n) { nodes { id } } }"
    assert (shape(query).nodes, shape(query, {"n": 500}).nodes) == (14, 1000)


def test_an_integral_float_counts_as_the_integer_that_it_becomes() -> None:
    query = "query ($n: Int = 7) { studies(first: $n) { nodes { id } } }"
    assert (shape(query, {"n": 500.0}).nodes, shape(query, {"n": 1e400}).nodes) == (1000, 40)


def test_windows_of_plain_lists_are_not_multiplied() -> None:
    query = '{series(seriesInstanceUID:"1"){instances(first:300){frames(first:200){url}}}}'
    assert shape(query).nodes == 3
    check(query)


_REPEATED = "fields with one name in one selection set"


@pytest.mark.parametrize(
    ("query", "what"),
    [
        (nested_fragments(19), "fields"),
        ("{" + " ".join(f"a{n}: __typename" for n in range(31)) + "}", "aliases"),
        ("{" + " ".join(["__typename"] * 21) + "}", "root fields"),
        ("{server{" + " ".join(["version"] * 41) + "}}", _REPEATED),
        (
            '{study(studyInstanceUID:""){' + "...{series{id}}" * 280 + "}}",
            _REPEATED,
        ),
        (
            "{server{" + "...f " * 21 + "}} fragment f on Server{version ...{version}}",
            _REPEATED,
        ),
        ("{a" * 63 + "}" * 63, "levels of fields"),
        ("{a" * 3000 + "}" * 3000, "levels of brackets"),
        ("{a(b:" + "[" * 100 + "]" * 100 + ")}", "levels of brackets"),
        ("{" + " " * 15_000 + "a}", "characters"),
        (
            "{patients(first:500){nodes{studies(first:500){nodes{id}}}}}",
            "objects in the answer, by `first` and `last`",
        ),
        (
            "{__schema{" + "types{fields{type{" * 6 + "name" + "}}}" * 6 + "}}",
            "levels of introspection fields",
        ),
        (
            "{studies(first:" + "9" * 5000 + "){nodes{id}}}",
            "objects in the answer, by `first` and `last`",
        ),
    ],
)
def test_what_is_too_much_is_refused_by_its_name(query: str, what: str) -> None:
    assert f" {what}; " in refuse(query)


def test_the_nested_fragments_that_cost_stock_limiters_seconds_are_small() -> None:
    assert len(nested_fragments(19)) < 850


def test_a_fragment_that_contains_itself_is_refused() -> None:
    with pytest.raises(GraphQLError, match="'f' within itself"):
        shape(
            "{studies{...f}} fragment f on StudyConnection{nodes{...g}} fragment g on Study{...f}"
        )


def test_a_viewer_query_of_twelve_levels_passes() -> None:
    query = (
        "{studies(first:10){nodes{patient{studies(first:10){nodes{series{study{series{instances{series{study{id}}}}}}}"
        "}}}}}"
    )
    assert shape(query).depth == 12
    check(query)


def test_the_introspection_of_client_tools_passes() -> None:
    check(get_introspection_query(input_value_deprecation=True, specified_by_url=True))


def test_brackets_in_texts_and_comments_do_not_count() -> None:
    check('{studies(filter:{text:"' + "{" * 100 + '\\""}){nodes{id}}} # ' + "[" * 100)


@pytest.mark.parametrize("query", ["{" + "a " * 3000 + "}", "{a}" + "#\n" * 3000])
def test_too_many_tokens_are_refused_as_other_limits_are(query: str) -> None:
    with pytest.raises(LimitExceeded) as raised:
        parse_limited(query, LIMITS)
    assert raised.value.message == "The query has too many tokens; 2000 are allowed."


class Idle:
    async def for_operation(self) -> Self:
        """Have nothing that operations could share."""
        return self


@strawberry.type
class Query:
    @strawberry.field
    async def slow(self) -> int:
        await asyncio.sleep(60)
        return 1


async def test_a_query_that_takes_too_long_is_cut() -> None:
    limits = replace(LIMITS, seconds=0.01)
    schema = strawberry.Schema(Query, extensions=[lambda: LimitedOperation(limits)])
    result = await schema.execute("{slow}", context_value=Idle())
    assert result.errors is not None
    assert isinstance(result.errors[0].original_error, LimitExceeded)
    assert result.data is None


@pytest.mark.parametrize(
    ("query", "code"),
    [
        (nested_fragments(19), "LIMIT_EXCEEDED"),
        ("{" + "a@b " * 3000 + "}", "LIMIT_EXCEEDED"),
        ("{a}" + "#\n" * 3000, "LIMIT_EXCEEDED"),
        ("{", "GRAPHQL_PARSE_FAILED"),
        ("{stud}", "GRAPHQL_VALIDATION_FAILED"),
        ('{studies(first: "x"){totalCount}}', "GRAPHQL_VALIDATION_FAILED"),
    ],
)
async def test_the_schema_refuses_with_a_code_and_without_suggestions(
    query: str, code: str
) -> None:
    result = await build_schema().execute(query, context_value=Idle())
    assert result.data is None
    assert result.errors is not None
    assert [error.extensions["code"] for error in result.errors if error.extensions] == [code]
    assert "Did you mean" not in result.errors[0].message


def introspection_cost(query: str) -> tuple[int, int]:
    """Answers the cost of a query, and what is allowed."""
    document = parse(query)
    operation = get_operation_ast(document)
    assert operation is not None
    sizes = schema_sizes(SCHEMA)
    return measure(operation, document, None, sizes).introspection.largest, (
        sizes.introspection_allowed
    )


def answered_fields(query: str) -> int:
    """Execute, and count the fields of the answer."""
    result = execute_sync(SCHEMA, parse(query))
    waiting: list[object] = [result.data]
    count = 0
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            count += len(one)
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
    return count


STANDARD = get_introspection_query(specified_by_url=True, input_value_deprecation=True)


@pytest.mark.parametrize(
    "query",
    [
        STANDARD,
        "{__schema{types{name fields{name args{name type{name}} type{name}}}}}",
        "{__schema{types{enumValues{name} inputFields{name} interfaces{name fields{name}}}}}",
        "{__schema{types{fields{type{name fields{name type{name fields{name}}}}}}}}",
        '{__type(name:"Study"){...T fields{type{...T}}}} fragment T on __Type{fields{args{name}}}',
        "{__schema{directives{name args{name}} queryType{fields{name}}}}",
        '{__type(name:"Node"){possibleTypes{fields{args{name}}}}}',
    ],
)
def test_introspection_costs_at_least_what_it_answers(query: str) -> None:
    cost, _ = introspection_cost(query)
    assert cost >= answered_fields(query)


def test_the_standard_introspection_costs_half_of_what_is_allowed() -> None:
    cost, allowed = introspection_cost(STANDARD)
    assert cost <= allowed / 2
    assert cost <= 10 * answered_fields(STANDARD)


@pytest.mark.parametrize(
    "query",
    [
        "{" + " ".join(f"a{n}:__schema{{...S}}" for n in range(20)) + "}"
        "fragment S on __Schema{types{fields{type{ofType{fields{name}}}args{type{name}}}}}",
        "{__schema{" + " ".join(f"a{n}:types{{...T}}" for n in range(25)) + "}}"
        "fragment T on __Type{fields{name args{name defaultValue} type{name kind description}}}",
        "{__schema{types{fields{type{ofType{fields{type{ofType{fields{args{name}}}}}}}}}}}",
    ],
)
def test_introspection_that_multiplies_is_refused(query: str) -> None:
    with pytest.raises(LimitExceeded, match="fields in the answer of introspection"):
        check_document(parse(query), None, schema_sizes(SCHEMA), LIMITS)


def test_variables_of_too_many_values_are_refused_before_they_are_coerced() -> None:
    check_variables({"uids": ["1.2"] * 500, "filter": {"text": "x"}}, LIMITS)
    check_variables({"files": [object()] * 50_000}, LIMITS)
    too_many: list[dict[str, object]] = [
        {"uids": ["1.2"] * 200_000},
        {"a": [[[]]] * 3_000},
        {"a": {str(n): n for n in range(6_000)}},
    ]
    for variables in too_many:
        with pytest.raises(LimitExceeded, match="5000 are allowed"):
            check_variables(variables, LIMITS)
