"""Queries for the modality worklist."""

from functools import partial
from typing import Annotated

import strawberry

from graph.context import Info
from graph.execution.authorization import RequiresRole
from graph.inputs import After, First, WorklistFilter
from graph.types.worklist import WorklistConnection, log_entries
from models import WorklistEntryDocument
from services.auth.roles import Role
from services.query.paging import PageRequest


@strawberry.type
class WorklistQuery:
    """Root fields that read the worklist."""

    @strawberry.field(
        description="Planned examinations, the earliest start first; those of a day without a time "
        "come before those with one. Filter by day and status for the work that is left. Empty for "
        "callers who see only some studies.",
        extensions=[RequiresRole(Role.VIEWER, is_search=True)],
    )
    async def worklist(
        self,
        info: Info,
        first: First = 20,
        after: After = None,
        filter_: Annotated[
            WorklistFilter | None, strawberry.argument(name="filter", description="Which ones.")
        ] = None,
    ) -> WorklistConnection:
        """List entries."""
        worklist, scope = info.context.runtime.worklist, info.context.scope
        criteria = (filter_ or WorklistFilter()).to_criteria()
        page = await worklist.page(criteria, PageRequest(first=first, after=after), scope)
        entries = [WorklistEntryDocument.model_validate(one) for one in page.documents]
        log_entries(info, entries)
        return WorklistConnection.of(page, entries, partial(worklist.count, criteria, scope))
