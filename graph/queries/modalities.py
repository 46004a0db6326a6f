"""Queries for modalities, and at modalities."""

from typing import Annotated

import strawberry

from graph.context import Info
from graph.execution.audit import describe_search, recorded
from graph.execution.authorization import RequiresRole, require_network
from graph.inputs import RemoteFilter, WorklistFilter
from graph.types.modality import Modality
from graph.types.remote import (
    RemotePatient,
    RemoteStudies,
    RemoteStudy,
    RemoteWorklistEntry,
    RetrievesOfStudies,
    SeriesOfStudies,
)
from services.audit import Action
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
    """Root fields that read modalities and ask them."""

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
        context = info.context
        principal = require_network(info)
        async with recorded(
            context.runtime.audit, Action.QUERY, principal, detail=f"remotePatients {modality[:64]}"
        ) as event:
            event.searched = describe_search("remotePatients", {"filter_": filter_})
            _require_page(info, first)
            context.prolong(context.runtime.settings.modality_seconds)
            found = await context.runtime.modalities.find_patients(
                modality, filter_.to_criteria(), first
            )
            event.number_of_objects = len(found)
        context.count_nodes(len(found))
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
        context = info.context
        principal = require_network(info)
        async with recorded(
            context.runtime.audit, Action.QUERY, principal, detail=f"remoteStudies {modality[:64]}"
        ) as event:
            event.searched = describe_search("remoteStudies", {"filter_": filter_})
            _require_page(info, first)
            context.prolong(context.runtime.settings.modality_seconds)
            found, is_incomplete = await context.runtime.modalities.find_studies(
                modality, filter_.to_criteria(), first
            )
            event.number_of_objects = len(found)
        context.count_nodes(len(found))
        uids = [one.study_instance_uid for one in found]
        series = SeriesOfStudies(context.runtime.modalities, modality, uids)
        retrieves = RetrievesOfStudies(context.runtime.jobs, modality, uids, principal)
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
        context = info.context
        principal = require_network(info)
        async with recorded(
            context.runtime.audit, Action.QUERY, principal, detail=f"remoteWorklist {modality[:64]}"
        ) as event:
            event.searched = describe_search("remoteWorklist", {"filter_": filter_})
            _require_page(info, first)
            context.prolong(context.runtime.settings.modality_seconds)
            found = await context.runtime.modalities.find_worklist(
                modality, filter_.to_query(), first
            )
            event.number_of_objects = len(found)
        context.count_nodes(len(found))
        return [RemoteWorklistEntry.of(record) for record in found]


def _require_page(info: Info, first: int) -> None:
    maximum = info.context.runtime.modalities.answers_max
    if not 1 <= first <= maximum:
        raise InvalidInput(f"first: 1 to {maximum} (REMOTE_ANSWERS_MAX).", argument="first")
