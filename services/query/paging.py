"""Keyset pages: a cursor names a document by its order key, so that no page skips any."""

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
"""A patient's name of three groups, in UTF-8 and base64, takes a quarter."""


_MOMENTS = frozenset({_CREATED_AT, _UPDATED_AT})
"""Stored fields that hold moments; all others that lists are ordered by hold texts."""


@dataclass(frozen=True, slots=True)
class Order:
    """An order of a list; `_id` decides between equals.

    Attributes:
        field: The stored field, which every document has.
        ascending: Smallest first.
    """

    field: str
    ascending: bool

    @property
    def name(self) -> str:
        """Stands in cursors: a cursor is of use in its own order only."""
        return ("+" if self.ascending else "-") + self.field


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which part of a list is wanted: `first` after `after`, or `last` before `before`."""

    first: int | None = None
    after: str | None = None
    last: int | None = None
    before: str | None = None


@dataclass(frozen=True, slots=True)
class PagePlan:
    """How to read a page.

    Attributes:
        filter: What lies beyond the cursors; to be combined with the list's own filter.
        sort: For MongoDB, reversed when the page is read from its end.
        limit: One more than the page holds: the surplus tells whether there is another page.
        size: Documents of the page.
        is_backward: The documents come in reverse.
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
    """How many objects a list has.

    Attributes:
        number: How many.
        is_exact: False: there are at least so many.
    """

    number: int
    is_exact: bool = True


def plan_page(request: PageRequest, order: Order, *, max_size: int) -> PagePlan:
    """Plan the reading of a page.

    Args:
        request: What is wanted.
        order: Of the list.
        max_size: Largest page.

    Raises:
        InvalidInput: The size is negative or too large, the ends are mixed, or a cursor is not of
            this list in this order.
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
    """Turn what was read into a page.

    Args:
        plan: How it was read.
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
    """Name a document's place in an order: opaque to callers."""
    # Absent only until a study that an earlier release indexed is read again.
    value = document.get(order.field, "")
    key = value.isoformat() if isinstance(value, datetime) else value
    return pack_cursor([order.name, key, document["_id"]])


def pack_cursor(parts: Sequence[object]) -> str:
    """Write the parts of a cursor as an opaque text."""
    text = json.dumps(parts, ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


NO_CURSOR = "That is no cursor of this list."


def unpack_cursor(cursor: str, *, argument: str = "after") -> Any:  # noqa: ANN401  # JSON
    """Read what `pack_cursor` wrote; callers check what the parts are.

    Args:
        cursor: As a caller sent it.
        argument: In which argument, for the error.

    Raises:
        InvalidInput: It is no cursor.
    """
    if len(cursor) > _CURSOR_MAX_CHARACTERS:
        raise InvalidInput(NO_CURSOR, argument=argument)
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        parts = json.loads(base64.b64decode(padded, altchars="-_", validate=True))
        # An escaped half of a surrogate pair is no text that MongoDB takes.
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
        message = "That cursor belongs to another list or another order."
        raise InvalidInput(message, argument=argument)
    if order.field not in _MOMENTS:
        return value, identifier
    try:
        return datetime.fromisoformat(value), identifier
    except ValueError as exc:
        raise InvalidInput(NO_CURSOR, argument=argument) from exc
