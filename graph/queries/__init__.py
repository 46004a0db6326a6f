"""The root of all queries, by domain."""

import strawberry

from graph.queries.archive import ArchiveQuery
from graph.queries.backup import BackupQuery
from graph.queries.jobs import JobsQuery
from graph.queries.modalities import ModalitiesQuery
from graph.queries.sharing import SharingQuery
from graph.queries.worklist import WorklistQuery


@strawberry.type(description="The root of all queries.")
class Query(
    ArchiveQuery,
    SharingQuery,
    JobsQuery,
    WorklistQuery,
    ModalitiesQuery,
    BackupQuery,
):
    """The root of all queries."""
