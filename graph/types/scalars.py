"""Scalars whose values are stored as they are answered."""

from datetime import date
from typing import NewType

import strawberry
from graphql import GraphQLError
from strawberry.types.scalar import ScalarDefinition

Date = NewType("Date", str)
Time = NewType("Time", str)


def _parse_date(value: object) -> Date:
    if isinstance(value, str):
        try:
            return Date(date.fromisoformat(value).isoformat())
        except ValueError:
            pass
    raise GraphQLError('A Date is written as "2026-03-31" (ISO 8601).')


def _output_only(_value: object) -> Time:
    raise GraphQLError("Time is used in answers only.")


SCALARS: dict[object, ScalarDefinition] = {
    Date: strawberry.scalar(
        name="Date",
        description="A date in ISO 8601, as `2026-03-31`. Null where the DICOM value is absent or "
        "no date.",
        serialize=str,
        parse_value=_parse_date,
    ),
    Time: strawberry.scalar(
        name="Time",
        description="A time of day in ISO 8601 without zone, as `13:05:59.250000`. Null where the "
        "DICOM value is absent or no time.",
        serialize=str,
        parse_value=_output_only,
    ),
}
