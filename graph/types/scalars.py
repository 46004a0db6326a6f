"""Scalars whose values are stored as they are answered."""

from datetime import date, datetime, time
from typing import NewType

import strawberry
from graphql import GraphQLError
from strawberry.file_uploads import Upload
from strawberry.scalars import JSON
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


def _parse_moment(value: object) -> datetime:
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            pass
    raise GraphQLError('A DateTime is written as "2026-03-31T13:05:59Z" (RFC 3339).')


def _serialize_moment(moment: datetime) -> str:
    return moment.isoformat()


def _parse_time(value: object) -> Time:
    if isinstance(value, str):
        try:
            parsed = time.fromisoformat(value)
        except ValueError:
            pass
        else:
            if parsed.tzinfo is None:
                return Time(parsed.isoformat())
    raise GraphQLError('A Time is written as "13:05:59" (ISO 8601), without a zone.')


def _unchanged(value: object) -> object:
    return value


_RFC_3339 = "https://www.rfc-editor.org/rfc/rfc3339#section-5.6"


SCALARS: dict[object, ScalarDefinition] = {
    Date: strawberry.scalar(
        name="Date",
        description="A date in ISO 8601, as `2026-03-31`. Null if the DICOM value is absent or "
        "not a date.",
        specified_by_url=_RFC_3339,
        serialize=str,
        parse_value=_parse_date,
    ),
    Time: strawberry.scalar(
        name="Time",
        description="A time of day in ISO 8601 without zone, as `13:05:59.250000`. Null where the "
        "DICOM value is absent or no time.",
        specified_by_url=_RFC_3339,
        serialize=str,
        parse_value=_parse_time,
    ),
    datetime: strawberry.scalar(
        name="DateTime",
        description="A moment, as `2026-03-31T13:05:59.250000+00:00`. What this server notes is in "
        "UTC; what a file says has the file's offset, and none where the file has none.",
        specified_by_url=_RFC_3339,
        serialize=_serialize_moment,
        parse_value=_parse_moment,
    ),
    JSON: strawberry.scalar(
        name="JSON",
        description="Any JSON value.",
        specified_by_url="https://www.rfc-editor.org/rfc/rfc8259",
        serialize=_unchanged,
        parse_value=_unchanged,
    ),
    Upload: strawberry.scalar(
        name="Upload",
        description="A file, as a part of a multipart request whose `map` names the variable.",
        specified_by_url="https://github.com/jaydenseric/graphql-multipart-request-spec",
        parse_value=_unchanged,
    ),
}
