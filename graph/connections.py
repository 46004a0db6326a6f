"""Lists in pages, by the conventions of GraphQL cursor connections."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, TypeVar

import strawberry

from services.search.paging import Page

NodeT = TypeVar("NodeT")


@strawberry.type(description="Where a page stands in its list.")
class PageInfo:
    """Where a page stands in its list."""

    has_next_page: bool = strawberry.field(description="There is more behind this page.")
    has_previous_page: bool = strawberry.field(description="There is more before this page.")
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
        description="Opaque name of this place; of use in the same list in the same order only."
    )
    node: NodeT = strawberry.field(description="The object.")


@strawberry.type(description="A page of a list.")
class Connection(Generic[NodeT]):
    """A page of a list."""

    edges: list[Edge[NodeT]] = strawberry.field(
        description="The objects of the page with their cursors."
    )
    page_info: PageInfo = strawberry.field(description="How to go on.")
    count: strawberry.Private[Callable[[], Awaitable[int]]]

    @strawberry.field(description="The objects of the page.")
    def nodes(self) -> list[NodeT]:
        """Return the objects without cursors."""
        return [edge.node for edge in self.edges]

    @strawberry.field(
        description="How many objects the whole list has. Counted when it is asked for: leave it "
        "out where it isn't shown."
    )
    async def total_count(self) -> int:
        """Count the list."""
        return await self.count()


def connection_from(
    page: Page,
    make_node: Callable[[Mapping[str, Any]], NodeT],
    count: Callable[[], Awaitable[int]],
) -> Connection[NodeT]:
    """Make the answer for a page.

    Args:
        page: Documents with their cursors.
        make_node: Makes an object of a document.
        count: Counts the whole list, when asked.
    """
    return Connection(
        edges=[
            Edge(cursor=cursor, node=make_node(document))
            for cursor, document in zip(page.cursors, page.documents, strict=True)
        ],
        page_info=PageInfo(
            has_next_page=page.has_next_page,
            has_previous_page=page.has_previous_page,
            start_cursor=page.cursors[0] if page.cursors else None,
            end_cursor=page.cursors[-1] if page.cursors else None,
        ),
        count=count,
    )
