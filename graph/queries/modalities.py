"""Queries for modalities and forwarding rules, and at modalities."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import strawberry

from graph.context import Info
from graph.execution.audit import describe_search, recorded
from graph.execution.authorization import RequiresRole, require_network
from graph.inputs import RemoteFilter, WorklistFilter
from graph.types.forwarding import ForwardingRule
from graph.types.modality import Modality
from graph.types.remote import (
    RemotePatient,
    RemoteStudies,
    RemoteStudy,
    RemoteWorklistEntry,
    RetrievesOfStudies,
    SeriesOfStudies,
)
from services.audit import Action, AuditEvent
from services.auth.roles import Role
from services.errors import InvalidInput

ModalityName = Annotated[
    str, strawberry.argument(name="modality", description="`name` of the modality.")
]
RemoteFirst = Annotated[
    int, strawberry.argument(description="How many at most, REMOTE_ANSWERS_MAX (500) at most.")
]
RemoteCriteriaArgument = Annotated[
    RemoteFilter, strawberry.argument(name="filter", description="Which ones.")
]


@strawberry.type
class ModalitiesQuery:
    """Root fields that read modalities and forwarding rules, and ask modalities."""

    @strawberry.field(
        description="The DICOM applications of the network that this server knows, by name. None "
        "for callers who see only some studies.",
        extensions=[RequiresRole(Role.VIEWER)],
    )
    async def modalities(self, info: Info) -> list[Modality]:
        """List modalities."""
        if not info.context.scope.is_all:
            return []
        found = await info.context.runtime.modalities.read_all()
        info.context.count_nodes(len(found))
        return [Modality.of(one) for one in found]

    @strawberry.field(
        description="A modality by its name; null when there is none.",
        extensions=[RequiresRole(Role.VIEWER)],
    )
    async def modality(
        self, info: Info, name: Annotated[str, strawberry.argument(description="Its name.")]
    ) -> Modality | None:
        """Find a modality."""
        if not info.context.scope.is_all:
            return None
        found = await info.context.runtime.modalities.find(name)
        return None if found is None else Modality.of(found)

    @strawberry.field(
        description="Search patients at a modality (C-FIND), by `patientID` and `patientName`.",
        extensions=[RequiresRole(Role.UPLOADER)],
    )
    async def remote_patients(
        self,
        info: Info,
        modality: ModalityName,
        filter_: RemoteCriteriaArgument,
        first: RemoteFirst = 100,
    ) -> list[RemotePatient]:
        """Search patients elsewhere."""
        async with _asking(info, "remotePatients", modality, filter_, first) as event:
            criteria = filter_.to_criteria()
            found = await info.context.runtime.modalities.find_patients(modality, criteria, first)
            event.number_of_objects = len(found)
        return [RemotePatient.of(record) for record in found]

    @strawberry.field(
        description="Search studies at a modality (C-FIND), in its order.",
        extensions=[RequiresRole(Role.UPLOADER)],
    )
    async def remote_studies(
        self,
        info: Info,
        modality: ModalityName,
        filter_: RemoteCriteriaArgument,
        first: RemoteFirst = 100,
    ) -> RemoteStudies:
        """Search studies elsewhere."""
        runtime = info.context.runtime
        async with _asking(info, "remoteStudies", modality, filter_, first) as event:
            found, is_incomplete = await runtime.modalities.find_studies(
                modality, filter_.to_criteria(), first
            )
            event.number_of_objects = len(found)
        uids = [one.study_instance_uid for one in found]
        series = SeriesOfStudies(runtime.modalities, modality, uids)
        retrieves = RetrievesOfStudies(runtime.jobs, modality, uids, require_network(info))
        return RemoteStudies(
            nodes=[RemoteStudy.of(record, series, retrieves) for record in found],
            is_incomplete=is_incomplete,
        )

    @strawberry.field(
        description="Search the worklist of a modality (C-FIND, PS3.4 K). `statuses` are of this "
        "server's worklist and can't be asked for.",
        extensions=[RequiresRole(Role.UPLOADER)],
    )
    async def remote_worklist(
        self,
        info: Info,
        modality: ModalityName,
        filter_: Annotated[
            WorklistFilter, strawberry.argument(name="filter", description="Which ones.")
        ],
        first: RemoteFirst = 100,
    ) -> list[RemoteWorklistEntry]:
        """Search planned examinations elsewhere."""
        async with _asking(info, "remoteWorklist", modality, filter_, first) as event:
            query = filter_.to_query()
            found = await info.context.runtime.modalities.find_worklist(modality, query, first)
            event.number_of_objects = len(found)
        return [RemoteWorklistEntry.of(record) for record in found]

    @strawberry.field(
        description="The rules that send what arrives to modalities, by name.",
        extensions=[RequiresRole(Role.ADMIN)],
    )
    async def forwarding_rules(self, info: Info) -> list[ForwardingRule]:
        """List rules."""
        found = await info.context.runtime.forwarding.read_all()
        info.context.count_nodes(len(found))
        return [ForwardingRule.of(rule) for rule in found]


@asynccontextmanager
async def _asking(
    info: Info, field: str, modality: str, filter_: RemoteFilter | WorklistFilter, first: int
) -> AsyncIterator[AuditEvent]:
    """Search at a modality while the block runs: recorded, with the time that it may take.

    Args:
        info: Of the operation.
        field: Public name of the root field.
        modality: Name of the modality.
        filter_: What is searched for.
        first: How many at most.

    Yields:
        The record, to which the block adds how many were found.

    Raises:
        Forbidden: The caller is limited to some studies.
        InvalidInput: `first` is out of range.
    """
    context = info.context
    runtime, principal = context.runtime, require_network(info)
    detail = f"{field} {modality[:64]}"
    async with recorded(runtime.audit, Action.QUERY, principal, detail=detail) as event:
        event.searched = describe_search(field, {"filter_": filter_})
        maximum = runtime.modalities.answers_max
        if not 1 <= first <= maximum:
            message = f"first: 1 to {maximum} (REMOTE_ANSWERS_MAX)."
            raise InvalidInput(message, argument="first")
        context.prolong(runtime.settings.modality_seconds)
        yield event
    context.count_nodes(event.number_of_objects)
