"""Keyset pages: a cursor contains the sort key of a document, so that no document is skipped."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from models import StudyDocument
from models.stored import stored_name
from services.errors import InvalidInput

_CREATED_AT = stored_name(StudyDocument.created_at)
_UPDATED_AT = stored_name(StudyDocument.updated_at)


_CURSOR_MAX_CHARACTERS = 8 * 1024
"""Longest cursor: a patient's name of three groups, in UTF-8 and base64, takes a quarter of it."""


_MOMENTS = frozenset({_CREATED_AT, _UPDATED_AT})
"""The fields that hold times; the other fields by which lists are sorted hold texts."""


@dataclass(frozen=True, slots=True)
class Order:
    """An order of a list; `_id` decides between equal values.

    Attributes:
        field: The stored field, which every document has.
        ascending: Smallest first.
    """

    field: str
    ascending: bool

    @property
    def name(self) -> str:
        """A name for cursors, which are only valid in their own order."""
        return ("+" if self.ascending else "-") + self.field


@dataclass(frozen=True, slots=True)
class PageRequest:
    """The requested part of a list: `first` after `after`, or `last` before `before`."""

    first: int | None = None
    after: str | None = None
    last: int | None = None
    before: str | None = None


@dataclass(frozen=True, slots=True)
class PagePlan:
    """How to read a page.

    Attributes:
        filter: Selects documents beyond the cursors; to be combined with the filter of the list.
        sort: For MongoDB, reversed if the page is read from its end.
        limit: One more than `size`, to find out whether there is another page.
        size: Documents of the page.
        is_backward: Whether the documents are read in reverse.
    """

    filter: Mapping[str, Any]
    sort: Sequence[tuple[str, int]]
    limit: int
    size: int
    is_backward: bool
    has_cursor: bool


@dataclass(frozen=True, slots=True)
class Page:
    """A page in the order of the list, with the cursor of each document."""

    documents: Sequence[Mapping[str, Any]]
    cursors: Sequence[str]
    has_next_page: bool
    has_previous_page: bool


@dataclass(frozen=True, slots=True)
class ListCount:
    """The number of objects of a list.

    Attributes:
        number: The number.
        is_exact: False: there are at least so many.
    """

    number: int
    is_exact: bool = True


def plan_page(request: PageRequest, order: Order, *, max_size: int) -> PagePlan:
    """Plan the reading of a page.

    Args:
        request: The requested part.
        order: Of the list.
        max_size: Largest page.

    Raises:
        InvalidInput: The size is negative or too large, arguments of both ends are combined, or a
            cursor belongs to another list or order.
    """
    is_backward = request.last is not None
    if is_backward and request.after is not None:
        raise InvalidInput("`last` goes with `before`, `first` with `after`.", argument="after")
    if not is_backward and request.before is not None:
        raise InvalidInput("`before` needs `last`.", argument="before")
    size = request.last if request.last is not None else request.first
    if size is None:
        raise InvalidInput("Give `first` or `last`.", argument="first")
    if not 0 <= size <= max_size:
        message = f"A page holds 0 to {max_size} entries; {size} were asked for."
        raise InvalidInput(message, argument="last" if is_backward else "first")
    name, cursor = ("before", request.before) if is_backward else ("after", request.after)
    ascending = order.ascending != is_backward
    direction = 1 if ascending else -1
    return PagePlan(
        filter={} if cursor is None else _beyond(cursor, order, ascending=ascending, argument=name),
        sort=((order.field, direction), ("_id", direction)),
        limit=size + 1,
        size=size,
        is_backward=is_backward,
        has_cursor=cursor is not None,
    )


def make_page(plan: PagePlan, order: Order, documents: Sequence[Mapping[str, Any]]) -> Page:
    """Make a page of the documents that were read.

    Args:
        plan: From `plan_page`.
        order: Of the list.
        documents: At most `plan.limit` of them, in the order of `plan.sort`.
    """
    has_more = len(documents) > plan.size
    kept = list(documents[: plan.size])
    if plan.is_backward:
        kept.reverse()
    return Page(
        documents=kept,
        cursors=[encode_cursor(document, order) for document in kept],
        has_next_page=plan.has_cursor if plan.is_backward else has_more,
        has_previous_page=has_more if plan.is_backward else plan.has_cursor,
    )


def encode_cursor(document: Mapping[str, Any], order: Order) -> str:
    """Return the cursor of a document: its position in an order, opaque to callers."""
    # Only absent until a study that an earlier release indexed is indexed again.
    value = document.get(order.field, "")
    key = value.isoformat() if isinstance(value, datetime) else value
    return pack_cursor([order.name, key, document["_id"]])


def pack_cursor(parts: Sequence[object]) -> str:
    """Write the parts of a cursor as an opaque text."""
    text = json.dumps(parts, ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


NO_CURSOR = "This is not a cursor of this list."


def unpack_cursor(cursor: str, *, argument: str = "after") -> Any:  # noqa: ANN401  # JSON
    """Read the parts of a cursor from `pack_cursor`; callers check the types of the parts.

    Args:
        cursor: As a caller sent it.
        argument: Name of the argument, for the error.

    Raises:
        InvalidInput: It is not a cursor.
    """
    if len(cursor) > _CURSOR_MAX_CHARACTERS:
        raise InvalidInput(NO_CURSOR, argument=argument)
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        parts = json.loads(base64.b64decode(padded, altchars="-_", validate=True))
        # MongoDB does not accept unpaired surrogates, which JSON can contain as escapes.
        json.dumps(parts, ensure_ascii=False).encode()
    except (ValueError, TypeError, RecursionError) as exc:
        raise InvalidInput(NO_CURSOR, argument=argument) from exc
    return parts


def _beyond(cursor: str, order: Order, *, ascending: bool, argument: str) -> Mapping[str, Any]:
    value, identifier = _decode_cursor(cursor, order, argument)
    operator = "$gt" if ascending else "$lt"
    return {
        "$or": [
            {order.field: {operator: value}},
            {order.field: value, "_id": {operator: identifier}},
        ]
    }


def _decode_cursor(cursor: str, order: Order, argument: str) -> tuple[str | datetime, str]:
    parts = unpack_cursor(cursor, argument=argument)
    if not isinstance(parts, list) or len(parts) != 3:  # noqa: PLR2004
        raise InvalidInput(NO_CURSOR, argument=argument)
    name, value, identifier = parts
    if not (isinstance(value, str) and isinstance(identifier, str)) or name != order.name:
        message = "This cursor belongs to another list or another order."
        raise InvalidInput(message, argument=argument)
    if order.field not in _MOMENTS:
        return value, identifier
    try:
        return datetime.fromisoformat(value), identifier
    except ValueError as exc:
        raise InvalidInput(NO_CURSOR, argument=argument) from exc
