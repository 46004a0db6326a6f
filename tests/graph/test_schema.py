"""The schema against its committed export and against the contract with clients."""

from pathlib import Path

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    Undefined,
)
from graphql import (
    build_schema as parse_schema,
)
from strawberry.types.base import StrawberryObjectDefinition

from graph.execution.authorization import RequiresRole
from graph.schema import build_schema, schema_sdl

CONTRACT: GraphQLSchema = parse_schema(
    Path(__file__).with_name("contract.graphql").read_text(encoding="utf-8")
)
OURS: GraphQLSchema = parse_schema(schema_sdl())
EXPORTED = Path(__file__).parents[2] / "graph" / "schema.graphql"

CONTRACT_TYPES = sorted(name for name in CONTRACT.type_map if not name.startswith("__"))


def test_the_exported_schema_is_the_schema() -> None:
    assert EXPORTED.read_text(encoding="utf-8") == schema_sdl()


@pytest.mark.parametrize("name", CONTRACT_TYPES)
def test_everything_in_the_contract_is_in_the_schema(name: str) -> None:
    wanted, found = CONTRACT.type_map[name], OURS.type_map[name]
    assert type(found) is type(wanted)
    if isinstance(wanted, GraphQLEnumType):
        assert isinstance(found, GraphQLEnumType)
        assert set(wanted.values) == set(found.values)
    if isinstance(wanted, GraphQLObjectType | GraphQLInterfaceType):
        assert isinstance(found, GraphQLObjectType | GraphQLInterfaceType)
        assert {i.name for i in wanted.interfaces} <= {i.name for i in found.interfaces}
        for field_name, field in wanted.fields.items():
            assert signature(found.fields[field_name]) == signature(field), f"{name}.{field_name}"
    if isinstance(wanted, GraphQLInputObjectType):
        assert isinstance(found, GraphQLInputObjectType)
        assert inputs(found) == inputs(wanted)


def signature(field: GraphQLField) -> tuple[str, dict[str, tuple[str, object]]]:
    arguments = {
        name: (str(argument.type), default(argument.default_value))
        for name, argument in field.args.items()
    }
    return str(field.type), arguments


def inputs(graphql_type: GraphQLInputObjectType) -> dict[str, tuple[str, object]]:
    return {
        name: (str(field.type), default(field.default_value))
        for name, field in graphql_type.fields.items()
    }


def default(value: object) -> object:
    # To callers a nullable argument with default null and one without default are the same.
    return None if value is Undefined else value


def test_every_type_field_and_argument_is_described() -> None:
    nameless = []
    for name, graphql_type in OURS.type_map.items():
        if name.startswith("__") or name in {"String", "Int", "Float", "Boolean", "ID", "Upload"}:
            continue
        if not graphql_type.description:
            nameless.append(name)
        for field_name, field in getattr(graphql_type, "fields", {}).items():
            if not field.description:
                nameless.append(f"{name}.{field_name}")
            nameless += [
                f"{name}.{field_name}({argument_name})"
                for argument_name, argument in getattr(field, "args", {}).items()
                if not argument.description
            ]
    assert nameless == []


def test_every_root_field_asks_for_a_role() -> None:
    schema = build_schema()
    roots = [schema.get_type_by_name(name) for name in ("Query", "Mutation")]
    unguarded = [
        field.python_name
        for root in roots
        if isinstance(root, StrawberryObjectDefinition)
        for field in root.fields
        if not any(isinstance(extension, RequiresRole) for extension in field.extensions)
    ]
    assert all(isinstance(root, StrawberryObjectDefinition) for root in roots)
    assert unguarded == []
