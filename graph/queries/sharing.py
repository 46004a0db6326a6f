"""Queries for shares: links that show some studies to whoever has them."""

from functools import partial
from typing import Annotated

import strawberry

from graph.context import Info
from graph.execution.authorization import RequiresRole
from graph.inputs import After, First
from graph.relay import Connection, connection_from
from graph.types.share import Share
from services.auth.roles import Role, authorize
from services.query.paging import PageRequest


@strawberry.type
class SharingQuery:
    """Root fields that read shares."""

    @strawberry.field(
        description="The shares that the caller made, the newest first; to administrators those "
        "of everybody.",
        extensions=[RequiresRole(Role.UPLOADER)],
    )
    async def shares(
        self,
        info: Info,
        first: First = 20,
        after: After = None,
        *,
        include_ended: Annotated[
            bool,
            strawberry.argument(description="Also those that have expired or were revoked."),
        ] = False,
    ) -> Connection[Share]:
        """List shares."""
        sharing = info.context.runtime.sharing
        principal = authorize(info.context.principal, Role.UPLOADER)
        request = PageRequest(first=first, after=after)
        page = await sharing.page(request, principal, include_ended=include_ended)
        info.context.count_nodes(len(page.documents))
        count = partial(sharing.count, principal, include_ended=include_ended)
        return connection_from(page, Share.from_stored, count)
