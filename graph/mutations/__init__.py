"""The root of all mutations, by domain."""

import strawberry

from graph.mutations.archive import ArchiveMutation
from graph.mutations.jobs import JobsMutation
from graph.mutations.sharing import SharingMutation


@strawberry.type(description="Everything that changes something.")
class Mutation(ArchiveMutation, SharingMutation, JobsMutation):
    """Everything that changes something."""
