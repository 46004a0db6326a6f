"""The cost of introspection: the number of fields in the answer of `__schema` and `__type`.

Introspection reads no data, so the limit of nodes does not bound it, but each of its fields takes
as long to execute as any other: 20 aliased `__schema` of 1.1 kB blocked the event loop for 4.2 s.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from graphql import GraphQLEnumType, GraphQLSchema, is_input_object_type

_ENTERS_TYPE = frozenset({"type", "ofType", "interfaces", "possibleTypes", "__type"})
"""Fields that lead to a type that the caller chooses: below them the largest sizes count."""


class IntrospectionCost(NamedTuple):
    """The number of fields in the answer of a selection set.

    Attributes:
        typical: Below `types`, with the average of all types; the sum over all types is exact.
        largest: Below one chosen type, with the longest list of the schema at each level.
    """

    typical: int = 0
    largest: int = 0


NO_COST = IntrospectionCost()


def total_cost(costs: Iterable[IntrospectionCost]) -> IntrospectionCost:
    """Return the cost of several fields of one selection set."""
    typical = largest = 0
    for cost in costs:
        typical += cost.typical
        largest += cost.largest
    return IntrospectionCost(typical, largest)


@dataclass(frozen=True, slots=True)
class IntrospectionSizes:
    """Lengths of the lists of introspection by field name; other fields count 1.

    Attributes:
        typical: Average of all types, rounded up.
        largest: Of the type with the longest list.
    """

    typical: Mapping[str, int] = field(default_factory=dict)
    largest: Mapping[str, int] = field(default_factory=dict)

    def cost_of(self, name: str, below: IntrospectionCost) -> IntrospectionCost:
        """Return the cost of a field.

        Args:
            name: Of the field.
            below: Cost of its selection set.
        """
        typical_below = below.largest if name in _ENTERS_TYPE else below.typical
        largest_below = below.typical if name in ("types", "directives") else below.largest
        return IntrospectionCost(
            self.typical.get(name, 1) * (1 + typical_below),
            self.largest.get(name, 1) * (1 + largest_below),
        )


@lru_cache(maxsize=4)
def introspection_sizes(schema: GraphQLSchema) -> IntrospectionSizes:
    """Measure a schema."""
    types = list(schema.type_map.values())
    fields = [getattr(each, "fields", None) or {} for each in types]
    input_fields = [
        one for one, each in zip(fields, types, strict=True) if is_input_object_type(each)
    ]
    output_fields = [
        one for one, each in zip(fields, types, strict=True) if not is_input_object_type(each)
    ]
    arguments = [one.args for each in output_fields for one in each.values()]
    arguments += [each.args for each in schema.directives]
    lengths: dict[str, list[int]] = {
        "fields": [len(each) for each in output_fields],
        "inputFields": [len(each) for each in input_fields],
        "args": [len(each) for each in arguments],
        "enumValues": [len(each.values) for each in types if isinstance(each, GraphQLEnumType)],
        "interfaces": [len(getattr(each, "interfaces", ())) for each in types],
        "possibleTypes": [len(types)],
    }
    of_schema = {"types": len(types), "directives": len(schema.directives)}
    typical = {
        name: _average(each, of=len(arguments) if name == "args" else len(types))
        for name, each in lengths.items()
        if name != "possibleTypes"
    }
    largest = {name: max(each, default=0) for name, each in lengths.items()}
    return IntrospectionSizes(of_schema | typical, of_schema | largest)


def _average(lengths: Iterable[int], *, of: int) -> int:
    return -(-sum(lengths) // max(of, 1))
