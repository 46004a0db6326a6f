"""The planning executor and graphql-core's own answer the same, errors and their paths included."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, NewType

import pytest
import strawberry
from strawberry.extensions import FieldExtension, SchemaExtension
from strawberry.schema.config import StrawberryConfig
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from graph.execution import executor
from graph.execution.executor import PlanningExecutor
from services.query import turns

if TYPE_CHECKING:
    from graphql import GraphQLResolveInfo

Executor = type[StrawberryGraphQLCoreExecutionContext]

Code = NewType("Code", str)
"""A scalar that can't be answered when it is empty."""

CODE = strawberry.scalar(name="Code", serialize=lambda value: value or None)


@strawberry.enum
class Color(Enum):
    RED = "r"
    BLUE = "b"


class Loud(FieldExtension):
    def resolve(
        self, next_: Callable[..., str], source: object, info: strawberry.Info, **kwargs: object
    ) -> str:
        return next_(source, info, **kwargs).upper()


@strawberry.input
class Point:
    x: int


@strawberry.interface
class Node:
    id: strawberry.ID


@dataclass
class Calls:
    """The context: what was called."""

    names: list[str] = field(default_factory=list)


@strawberry.type
class Leaf:
    name: str
    size: int | None = None

    @strawberry.field
    def doubled(self) -> int | None:
        return None if self.size is None else 2 * self.size

    @strawberry.field
    async def slow(self) -> str:
        return f"slow {self.name}"


@strawberry.type
class Branch(Node):
    title: str
    number: int | None
    share: float | None = None
    color: Color = Color.RED
    words: list[str] = strawberry.field(default_factory=list)
    leaf: Leaf | None = None
    code: Code = Code("")
    alternative: Code | None = Code("")

    @strawberry.field
    def label(self, info: strawberry.Info[Calls, None], prefix: str = "no", times: int = 1) -> str:
        info.context.names.append("label")
        return f"{prefix}. {self.title}" * times

    @strawberry.field
    def tinted(self, color: Color) -> Color:
        return color

    @strawberry.field
    def path(self, info: strawberry.Info[Calls, None]) -> str:
        return "/".join(map(str, info.path.as_list()))

    @strawberry.field
    def joined(self, words: list[str]) -> str:
        words.append("end")
        return " ".join(words)

    @strawberry.field
    def moved(self, point: Point) -> int:
        return point.x + 1

    @strawberry.field(extensions=[Loud()])  # type: ignore[untyped-decorator]  # Strawberry types it as Any
    def whisper(self) -> str:
        return "psst"

    @strawberry.field
    def leaves(self, count: Annotated[int, strawberry.argument(name="howMany")]) -> list[Leaf]:
        return [Leaf(name=f"l{index}", size=index) for index in range(count)]

    @strawberry.field
    def maybe_leaf(self) -> Leaf | None:
        return Leaf(name="m")

    @strawberry.field
    def broken(self, info: strawberry.Info[Calls, None]) -> str | None:
        info.context.names.append("broken")
        raise ValueError("broken")

    @strawberry.field
    def fatal(self, info: strawberry.Info[Calls, None]) -> str:
        info.context.names.append("fatal")
        raise ValueError("fatal")

    @strawberry.field
    def nothing(self) -> str:
        return None  # type: ignore[return-value]  # the fault under test

    @strawberry.field
    async def late(self) -> str:
        return f"late {self.title}"


def branches() -> list[Branch]:
    return [
        Branch(
            id=strawberry.ID("1"),
            title="one",
            number=1,
            share=0.5,
            words=["a", "b"],
            leaf=Leaf(name="L", size=3),
        ),
        Branch(id=strawberry.ID("2"), title="two", number=None, color=Color.BLUE),
    ]


@strawberry.type
class Query:
    @strawberry.field
    async def branches(self) -> list[Branch]:
        return branches()

    @strawberry.field
    def node(self) -> Node:
        return branches()[1]

    @strawberry.field
    async def faulty(self) -> list[Branch | None]:
        large, untitled, ok = *branches(), branches()[0]
        large.number = 2**31
        untitled.title = None  # type: ignore[assignment]  # the fault under test
        return [large, untitled, ok]


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def changes(self) -> AsyncIterator[Branch]:
        for branch in branches():
            yield branch


def schema_of(executor: Executor, *extensions: type[SchemaExtension]) -> strawberry.Schema:
    return strawberry.Schema(
        query=Query,
        subscription=Subscription,
        types=[Branch],
        extensions=extensions,
        execution_context_class=executor,
        config=StrawberryConfig(scalar_map={Code: CODE}),
    )


@pytest.fixture(params=[StrawberryGraphQLCoreExecutionContext, PlanningExecutor])
def schema(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> strawberry.Schema:
    monkeypatch.setattr(strawberry.Schema, "process_errors", lambda *_: None)
    return schema_of(request.param)


async def answer(
    schema: strawberry.Schema, query: str, **variables: object
) -> tuple[dict[str, Any] | None, list[tuple[str, list[str | int] | None]]]:
    result = await schema.execute(query, variables, context_value=Calls())
    return result.data, [(error.message, error.path) for error in result.errors or ()]


async def test_attributes_come_in_the_order_of_the_query(schema: strawberry.Schema) -> None:
    data, errors = await answer(
        schema, "{ branches { late number id title: title share color words leaf { size name } } }"
    )
    assert errors == []
    assert [list(branch.items()) for branch in (data or {})["branches"]] == [
        [
            ("late", "late one"),
            ("number", 1),
            ("id", "1"),
            ("title", "one"),
            ("share", 0.5),
            ("color", "RED"),
            ("words", ["a", "b"]),
            ("leaf", {"size": 3, "name": "L"}),
        ],
        [
            ("late", "late two"),
            ("number", None),
            ("id", "2"),
            ("title", "two"),
            ("share", None),
            ("color", "BLUE"),
            ("words", []),
            ("leaf", None),
        ],
    ]


async def test_methods_get_their_arguments(schema: strawberry.Schema) -> None:
    query = """query ($prefix: String!, $with: Boolean!, $color: Color!) { branches {
      label twice: label(prefix: $prefix, times: 2) left: label @skip(if: $with)
      right: label @include(if: $with) tinted(color: $color) blue: tinted(color: BLUE)
      moved(point: {x: 1}) whisper path inner: path ...on Branch { __typename title } ...more
    } } fragment more on Branch { title leaves(howMany: 2) { name doubled } }"""
    data, errors = await answer(schema, query, prefix="p", **{"with": True}, color="RED")
    assert errors == []
    assert (data or {})["branches"] == [
        {
            "label": f"no. {title}",
            "twice": f"p. {title}p. {title}",
            "right": f"no. {title}",
            "tinted": "RED",
            "blue": "BLUE",
            "moved": 2,
            "whisper": "PSST",
            "path": f"branches/{index}/path",
            "inner": f"branches/{index}/inner",
            "__typename": "Branch",
            "title": title,
            "leaves": [{"name": "l0", "doubled": 0}, {"name": "l1", "doubled": 2}],
        }
        for index, title in enumerate(("one", "two"))
    ]


async def test_a_method_that_changes_its_list_changes_no_other_call(
    schema: strawberry.Schema,
) -> None:
    query = (
        'query ($words: [String!]!) { branches { joined(words: $words) b: joined(words: ["x"]) } }'
    )
    data, errors = await answer(schema, query, words=["a"])
    assert errors == []
    assert (data or {})["branches"] == [{"joined": "a end", "b": "x end"}] * 2


async def test_asynchronous_fields_are_found_below_methods(schema: strawberry.Schema) -> None:
    data, errors = await answer(schema, "{ branches { leaves(howMany: 1) { name slow } } }")
    assert errors == []
    assert (data or {})["branches"] == [{"leaves": [{"name": "l0", "slow": "slow l0"}]}] * 2


async def test_an_interface_answers_as_its_type(schema: strawberry.Schema) -> None:
    data, errors = await answer(schema, "{ node { id __typename ...on Branch { title label } } }")
    assert errors == []
    assert (data or {})["node"] == {
        "id": "2",
        "__typename": "Branch",
        "title": "two",
        "label": "no. two",
    }


async def test_a_fault_in_a_nullable_field_stays_there(schema: strawberry.Schema) -> None:
    data, errors = await answer(schema, "{ branches { title broken } }")
    assert data == {
        "branches": [{"title": "one", "broken": None}, {"title": "two", "broken": None}]
    }
    assert errors == [("broken", ["branches", 0, "broken"]), ("broken", ["branches", 1, "broken"])]


@pytest.mark.parametrize(
    ("selected", "message"),
    [
        ("fatal", "fatal"),
        ("nothing", "Cannot return null for non-nullable field Branch.nothing."),
        ("late fatal", "fatal"),
    ],
)
async def test_a_fault_in_a_required_field_takes_its_parents_along(
    schema: strawberry.Schema, selected: str, message: str
) -> None:
    data, errors = await answer(schema, f"{{ branches {{ title {selected} }} }}")
    assert data is None
    assert errors == [(message, ["branches", 0, selected.rsplit(maxsplit=1)[-1]])]


async def test_values_that_do_not_fit_are_errors(schema: strawberry.Schema) -> None:
    data, errors = await answer(schema, "{ faulty { title number } }")
    assert data == {
        "faulty": [{"title": "one", "number": None}, None, {"title": "one", "number": 1}]
    }
    assert errors == [
        (
            "Int cannot represent non 32-bit signed integer value: 2147483648",
            ["faulty", 0, "number"],
        ),
        ("Cannot return null for non-nullable field Branch.title.", ["faulty", 1, "title"]),
    ]


async def test_an_argument_that_does_not_fit_is_an_error_at_each_object(
    schema: strawberry.Schema,
) -> None:
    query = "query ($times: Int = 1) { branches { title label(times: $times) } }"
    data, errors = await answer(schema, query, times=None)
    assert data is None
    assert [path for _, path in errors] == [["branches", 0, "label"]]


@pytest.mark.parametrize("code", ["code", "alternative"])
async def test_a_scalar_that_answers_nothing_is_an_error(
    schema: strawberry.Schema, code: str
) -> None:
    data, errors = await answer(schema, f"{{ faulty {{ {code} }} }}")
    assert data == {"faulty": [None if code == "code" else {code: None}] * 3}
    assert [(message[:19], path) for message, path in errors] == [
        ("Expected `Code.coer", ["faulty", index, code]) for index in range(3)
    ]


async def test_a_directive_that_does_not_fit_is_an_error_where_it_is(
    schema: strawberry.Schema,
) -> None:
    query = """query ($if: Boolean = true) {
      branches { title maybeLeaf { name @skip(if: $if) } }
    }"""
    data, errors = await answer(schema, query, **{"if": None})
    assert data == {"branches": [{"title": title, "maybeLeaf": None} for title in ("one", "two")]}
    assert [path for _, path in errors] == [["branches", index, "maybeLeaf"] for index in range(2)]


async def test_a_method_is_called_once_for_each_object(schema: strawberry.Schema) -> None:
    calls = Calls()
    await schema.execute("{ branches { label broken late } }", context_value=calls)
    assert sorted(calls.names) == ["broken", "broken", "label", "label"]


async def test_events_are_executed_one_by_one(schema: strawberry.Schema) -> None:
    events = await schema.subscribe(
        "subscription { changes { title label } }", context_value=Calls()
    )
    titles = [event.data["changes"] async for event in events if event.data]
    assert titles == [
        {"title": "one", "label": "no. one"},
        {"title": "two", "label": "no. two"},
    ]


async def test_others_have_their_turns_while_a_long_list_is_completed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(executor, "LONG_LIST", 0)
    calls = Calls()

    async def other() -> None:
        while True:
            calls.names.append("other")
            await asyncio.sleep(0)

    others = asyncio.create_task(other())
    schema = schema_of(PlanningExecutor)
    result = await schema.execute("{ branches { label } }", context_value=calls)
    others.cancel()
    assert result.errors is None
    first = calls.names.index("label")
    second = calls.names.index("label", first + 1)
    assert "other" in calls.names[first:second]


async def test_an_event_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    executors: list[PlanningExecutor] = []
    build = PlanningExecutor.build_per_event_executor

    def noting(executor: PlanningExecutor, payload: object) -> PlanningExecutor:
        executors.append(build(executor, payload))
        return executors[-1]

    monkeypatch.setattr(PlanningExecutor, "build_per_event_executor", noting)
    query = "subscription { changes { title late leaf { name } } }"
    events = await schema_of(PlanningExecutor).subscribe(query, context_value=Calls())
    async for event in events:
        assert event.errors is None
    first, second = executors
    # The branch and its leaf, which are planned also where the leaf is null.
    assert len(first._relevant_sub_fields) == 2
    assert len(second._relevant_sub_fields) == 2


@pytest.mark.parametrize("executor", [StrawberryGraphQLCoreExecutionContext, PlanningExecutor])
async def test_hooks_of_fields_see_every_field(executor: Executor) -> None:
    seen: list[str] = []

    class Hook(SchemaExtension):
        def resolve(
            self,
            _next: Callable[..., object],
            root: object,
            info: "GraphQLResolveInfo[Any]",
            *args: object,
            **kwargs: object,
        ) -> object:
            seen.append(info.field_name)
            return _next(root, info, *args, **kwargs)

    await schema_of(executor, Hook).execute("{ node { id } }", context_value=Calls())
    assert seen == ["node", "id"]


def test_nothing_is_awaited_where_nothing_has_to_be() -> None:
    result = schema_of(PlanningExecutor).execute_sync(
        "{ node { id ...on Branch { title leaf { name } label } } }", context_value=Calls()
    )
    assert result.errors is None
    assert result.data == {"node": {"id": "2", "title": "two", "leaf": None, "label": "no. two"}}
