"""Queries made by hypothesis: the planning executor answers as graphql-core's own does."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import strawberry
from hypothesis import given
from hypothesis import strategies as st
from strawberry.extensions import DisableValidation
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from graph.execution.executor import PlanningExecutor
from tests.graph.execution.test_executor import Calls, schema_of

Selection = st.SearchStrategy[str]
Position = tuple[str | int, ...]

LEAF_FIELDS = ["name", "size", "doubled", "slow", "__typename"]
BRANCH_FIELDS = [
    *("id", "title", "number", "share", "color", "words", "code", "alternative", "__typename"),
    *("label", "path", "whisper", "broken", "late", "fatal", "nothing"),
    "label(prefix: $text, times: $number)",
    "tinted(color: BLUE)",
    "tinted(color: $color)",
    "joined(words: [$text, $text])",
    "joined(words: $texts)",
    "moved(point: {x: $number})",
]
BRANCH_OBJECTS = ["leaf", "maybeLeaf", "leaves(howMany: 2)", "leaves(howMany: $number)"]
CONDITIONS = [
    "",
    "",
    "",
    *(f"@{word}(if: ${name})" for word in ("skip", "include") for name in "yn"),
]
HEADER = """query (
  $text: String! = "t", $texts: [String!]! = ["t"], $number: Int! = 1, $color: Color! = RED,
  $y: Boolean! = true, $n: Boolean = false
)"""
VARIABLES: list[dict[str, Any]] = [
    {},
    {"n": None},
    {"number": 0, "color": "BLUE", "y": False, "n": True},
]


@st.composite
def field(draw: st.DrawFn, spellings: list[str], below: Selection | None = None) -> str:
    """A field: now and then under another name, or on a condition."""
    spelling = draw(st.sampled_from(spellings))
    # Fields of one name must agree: the alias tells apart what is spelled differently.
    alias = draw(st.sampled_from(["", "a", "b"]))
    name = "".join(filter(str.isalnum, spelling))
    selected = f" {draw(below)}" if below is not None else ""
    condition = draw(st.sampled_from(CONDITIONS))
    return f"{alias}{name}: {spelling} {condition}{selected}"


def selection(fields: Selection, type_name: str, *fragments: str) -> Selection:
    """Fields in braces, some of them in fragments of the type."""
    inline = st.lists(fields, min_size=1, max_size=3).map(
        lambda some: f"...on {type_name} {{ {' '.join(some)} }}"
    )
    entry = st.one_of(fields, fields, inline, *map(st.just, fragments))
    return st.lists(entry, min_size=1, max_size=6).map(lambda some: f"{{ {' '.join(some)} }}")


LEAF = selection(field(LEAF_FIELDS), "Leaf", "...leafParts")
BRANCH_FIELD = st.one_of(field(BRANCH_FIELDS), field(BRANCH_FIELDS), field(BRANCH_OBJECTS, LEAF))
BRANCH = selection(BRANCH_FIELD, "Branch", "...branchParts")


@st.composite
def documents(draw: st.DrawFn) -> str:
    """A query with two fragments that it may use."""
    leaf_parts = draw(selection(field(LEAF_FIELDS), "Leaf"))
    branch_parts = draw(selection(BRANCH_FIELD, "Branch", "...leafless"))
    root = draw(st.sampled_from(["branches", "faulty", "node"]))
    selected = draw(BRANCH)
    return f"""{HEADER} {{ {root} {{ ...on Branch {selected} }} }}
fragment leafless on Branch {{ title }}
fragment leafParts on Leaf {leaf_parts}
fragment branchParts on Branch {branch_parts}"""


@dataclass(frozen=True)
class Answer:
    """What must be the same, whatever the order in which fields are executed.

    Attributes:
        data: As JSON: the order of names counts.
        nulls: Positions that errors made null.
        messages: Of the errors that made nothing null but their own field.
        calls: In any order; None where an error kept neighbours from being called.
    """

    data: str
    nulls: frozenset[Position]
    messages: Mapping[Position, str]
    calls: Sequence[str] | None


async def answer(schema: strawberry.Schema, query: str, variables: dict[str, Any]) -> Answer:
    calls = Calls()
    result = await schema.execute(query, variables, context_value=calls)
    errors = result.errors or []
    nulls = [_null_at(result.data, tuple(error.path or ())) for error in errors]
    messages = {
        null: error.message
        for null, error in zip(nulls, errors, strict=True)
        if null == tuple(error.path or ())
    }
    is_all_called = len(messages) == len(errors)
    return Answer(
        json.dumps(result.data),
        frozenset(nulls),
        messages,
        sorted(calls.names) if is_all_called else None,
    )


def _null_at(data: Any, path: Position) -> Position:  # noqa: ANN401  # any JSON
    """Return the first position on the way of an error that is null."""
    for depth, key in enumerate(path):
        if data is None:
            return path[:depth]
        data = data[key]
    assert data is None
    return path


@pytest.fixture(scope="module")
def schemas() -> Iterator[tuple[strawberry.Schema, strawberry.Schema]]:
    """The executor of graphql-core and ours; fragments and variables need not be used."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strawberry.Schema, "process_errors", lambda *_: None)
        yield (
            schema_of(StrawberryGraphQLCoreExecutionContext, DisableValidation),
            schema_of(PlanningExecutor, DisableValidation),
        )


@pytest.mark.no_cover
@given(query=documents(), variables=st.sampled_from(VARIABLES))
async def test_both_executors_answer_alike(
    schemas: tuple[strawberry.Schema, strawberry.Schema], query: str, variables: dict[str, Any]
) -> None:
    expected, found = [await answer(schema, query, variables) for schema in schemas]
    assert found == expected
