"""Pages of lists by the conventions of GraphQL cursor connections, and global identifiers."""

import asyncio
import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, Literal, TypeVar, get_args

import strawberry

from services.errors import InvalidInput
from services.orthanc.identifiers import is_orthanc_id
from services.query.paging import ListCount, Page


@strawberry.interface(description="An object that `node` finds by its `id`.")
class Node:
    """What the four DICOM levels have in common."""

    id: strawberry.ID = strawberry.field(
        description="Global identifier: opaque, stable, for `node` and the delete mutations."
    )


TypeName = Literal[
    "Patient", "Study", "Series", "Instance", "Frame", "Share", "Job", "WorklistEntry", "Modality"
]

_RANDOM_ID = re.compile(r"[0-9a-f]{16}")
_WORKLIST_ENTRY_ID = re.compile(r"[0-9a-f]{32}")
_MODALITY_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_FRAME_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
"""A 0-based frame index; 9 digits are more than NumberOfFrames has."""


_NODE_ID_MAX_CHARACTERS = 128


def encode_node_id(type_name: TypeName, orthanc_id: str) -> strawberry.ID:
    """Make the `id` of an object."""
    return strawberry.ID(base64.urlsafe_b64encode(f"{type_name}:{orthanc_id}".encode()).decode())


def decode_node_id(node_id: str) -> tuple[TypeName, str] | None:
    """Read type and Orthanc identifier from an `id`; None for an id that this server never made."""
    if len(node_id) > _NODE_ID_MAX_CHARACTERS:
        return None
    try:
        text = base64.b64decode(node_id, altchars="-_", validate=True).decode("ascii")
    except (binascii.Error, UnicodeError, ValueError):
        return None
    name, _, orthanc_id = text.partition(":")
    for type_name in get_args(TypeName):
        # Accept only one spelling: base64 has several for the same bytes.
        if (
            name == type_name
            and _is_id(type_name, orthanc_id)
            and encode_node_id(type_name, orthanc_id) == node_id
        ):
            return type_name, orthanc_id
    return None


def _is_id(type_name: TypeName, text: str) -> bool:
    if type_name in {"Share", "Job"}:
        return bool(_RANDOM_ID.fullmatch(text))
    if type_name == "WorklistEntry":
        return bool(_WORKLIST_ENTRY_ID.fullmatch(text))
    if type_name == "Modality":
        return bool(_MODALITY_NAME.fullmatch(text))
    if type_name == "Frame":
        orthanc_id, _, index = text.partition("/")
        return is_orthanc_id(orthanc_id) and bool(_FRAME_INDEX.fullmatch(index))
    return is_orthanc_id(text)


def frame_local_id(orthanc_instance_id: str, index: int) -> str:
    """Return the content of a frame's `id`; `index` is 0-based."""
    return f"{orthanc_instance_id}/{index}"


def parse_frame_local_id(local_id: str) -> tuple[str, int]:
    """Return the instance and the 0-based index of a decoded `id` of a frame."""
    orthanc_instance_id, _, index = local_id.partition("/")
    return orthanc_instance_id, int(index)


def require_node_id(type_name: TypeName, node_id: str) -> str:
    """Read the Orthanc identifier from the `id` of an object of one type.

    Raises:
        InvalidInput: It is not such an `id`.
    """
    decoded = decode_node_id(node_id)
    if decoded is None or decoded[0] != type_name:
        message = f"This is not the id of a {type_name}. Use the value of its field `id`."
        raise InvalidInput(message, argument="id")
    return decoded[1]


NodeT = TypeVar("NodeT")


@strawberry.type(description="The position of a page in its list.")
class PageInfo:
    """The position of a page in its list."""

    has_next_page: bool = strawberry.field(description="Whether there is a next page.")
    has_previous_page: bool = strawberry.field(description="Whether there is a previous page.")
    start_cursor: str | None = strawberry.field(
        description="Cursor of the first object, for `before`; null when the page is empty."
    )
    end_cursor: str | None = strawberry.field(
        description="Cursor of the last object, for `after`; null when the page is empty."
    )


@strawberry.type(description="An object with its place in the list.")
class Edge(Generic[NodeT]):
    """An object of a list."""

    cursor: str = strawberry.field(
        description="Opaque position, valid only in the same list in the same order."
    )
    node: NodeT = strawberry.field(description="The object.")


@strawberry.type(description="A page of a list.")
class Connection(Generic[NodeT]):
    """A page of a list."""

    edges: list[Edge[NodeT]] = strawberry.field(
        description="The objects of the page with their cursors."
    )
    page_info: PageInfo = strawberry.field(
        description="Whether there are further pages, and their cursors."
    )
    count: strawberry.Private[Callable[[], Awaitable[ListCount]]]

    @strawberry.field(description="The objects of the page.")
    def nodes(self) -> list[NodeT]:
        """Return the objects without cursors."""
        return [edge.node for edge in self.edges]

    @strawberry.field(
        description="Number of objects of the whole list. It is counted when it is requested: "
        "leave it out if it is not shown."
    )
    async def total_count(self) -> int:
        """Count the list."""
        return (await self.count()).number

    @strawberry.field(
        description="False: the list has at least `totalCount` objects. At most 100,000 matches "
        "of a filter are counted."
    )
    async def total_count_is_exact(self) -> bool:
        """Return whether the count is exact, and not only a lower bound."""
        return (await self.count()).is_exact


Count = Callable[[], Awaitable[int | ListCount]]
"""Counts a whole list."""


def counted_once(count: Count) -> Callable[[], Awaitable[ListCount]]:
    """Return a function that counts at its first call and then returns the same result."""
    lock = asyncio.Lock()
    known: ListCount | None = None

    async def counted() -> ListCount:
        nonlocal known
        async with lock:
            if known is None:
                found = await count()
                known = found if isinstance(found, ListCount) else ListCount(found)
        return known

    return counted


def connection_from(
    page: Page,
    make_node: Callable[[Mapping[str, Any]], NodeT],
    count: Count,
) -> Connection[NodeT]:
    """Make the connection of a page.

    Args:
        page: Documents with their cursors.
        make_node: Makes an object of a document.
        count: Counts the whole list; called if the count is requested.
    """
    return Connection(
        edges=edges_of(page, make_node),
        page_info=page_info_of(page),
        count=counted_once(count),
    )


def edges_of(page: Page, make_node: Callable[[Mapping[str, Any]], NodeT]) -> list[Edge[NodeT]]:
    """Make the edges of a page."""
    return [
        Edge(cursor=cursor, node=make_node(document))
        for cursor, document in zip(page.cursors, page.documents, strict=True)
    ]


def page_info_of(page: Page) -> PageInfo:
    """Return the position of a page in its list."""
    return PageInfo(
        has_next_page=page.has_next_page,
        has_previous_page=page.has_previous_page,
        start_cursor=page.cursors[0] if page.cursors else None,
        end_cursor=page.cursors[-1] if page.cursors else None,
    )
