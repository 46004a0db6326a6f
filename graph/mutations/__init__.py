"""The root of all mutations, by domain."""

import strawberry

from graph.mutations.anonymization import AnonymizationMutation
from graph.mutations.archive import ArchiveMutation
from graph.mutations.backup import BackupMutation
from graph.mutations.exports import ExportsMutation
from graph.mutations.jobs import JobsMutation
from graph.mutations.modalities import ModalitiesMutation
from graph.mutations.sharing import SharingMutation
from graph.mutations.worklist import WorklistMutation


@strawberry.type(description="The root of all mutations.")
class Mutation(
    ArchiveMutation,
    AnonymizationMutation,
    ExportsMutation,
    SharingMutation,
    JobsMutation,
    WorklistMutation,
    ModalitiesMutation,
    BackupMutation,
):
    """The root of all mutations."""
