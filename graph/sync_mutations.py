"""The mutations of admins: delete, and compare with Orthanc."""

from typing import Annotated

import strawberry

from graph.auditing import Subjects, recorded
from graph.authorization import RequiresRole
from graph.context import Info
from graph.node_ids import TypeName, require_node_id
from graph.types.sync import DeletePayload, SyncReport
from services.access import Role
from services.deeds import Action
from services.deleting import Level
from services.errors import PacsDisabled

_LEVELS: dict[TypeName, Level] = {
    "Patient": Level.PATIENT,
    "Study": Level.STUDY,
    "Series": Level.SERIES,
    "Instance": Level.INSTANCE,
}

NodeId = Annotated[strawberry.ID, strawberry.argument(name="id", description="Its field `id`.")]


@strawberry.type
class SyncMutation:
    """Deleting and synchronizing."""

    @strawberry.mutation(
        description="Delete a patient with all studies, in Orthanc and here.",
        extensions=[RequiresRole(Role.ADMIN)],
    )
    async def delete_patient(self, info: Info, node_id: NodeId) -> DeletePayload:
        """Delete a patient."""
        return await _delete(info, "Patient", node_id)

    @strawberry.mutation(
        description="Delete a study, in Orthanc and here; an empty patient goes too.",
        extensions=[RequiresRole(Role.ADMIN)],
    )
    async def delete_study(self, info: Info, node_id: NodeId) -> DeletePayload:
        """Delete a study."""
        return await _delete(info, "Study", node_id)

    @strawberry.mutation(
        description="Delete a series, in Orthanc and here; empty parents go too.",
        extensions=[RequiresRole(Role.ADMIN)],
    )
    async def delete_series(self, info: Info, node_id: NodeId) -> DeletePayload:
        """Delete a series."""
        return await _delete(info, "Series", node_id)

    @strawberry.mutation(
        description="Delete an instance, in Orthanc and here; empty parents go too.",
        extensions=[RequiresRole(Role.ADMIN)],
    )
    async def delete_instance(self, info: Info, node_id: NodeId) -> DeletePayload:
        """Delete an instance."""
        return await _delete(info, "Instance", node_id)

    @strawberry.mutation(
        description="Compare everything with Orthanc now, and repair what differs.",
        extensions=[RequiresRole(Role.ADMIN)],
    )
    async def synchronize(self, info: Info) -> SyncReport:
        """Compare and repair."""
        sync = info.context.runtime.sync
        if sync is None:
            raise PacsDisabled
        context = info.context
        async with recorded(
            context.runtime.audit, Action.SYNCHRONIZE, context.principal, detail="synchronize"
        ):
            return SyncReport.of(await sync.synchronize())


async def _delete(info: Info, type_name: TypeName, node_id: str) -> DeletePayload:
    resource_id = require_node_id(type_name, node_id)
    deletion = info.context.runtime.deletion
    if deletion is None:
        raise PacsDisabled
    audit, principal = info.context.runtime.audit, info.context.principal
    async with recorded(
        audit, Action.DELETE, principal, detail=f"{type_name} {resource_id}"
    ) as subjects:
        _name_subject(subjects, type_name, resource_id)
        doomed = await deletion.find(_LEVELS[type_name], resource_id)
        subjects.patient_ids |= doomed.patient_ids
        subjects.study_ids |= doomed.study_ids
        deleted = await deletion.delete(doomed)
        subjects.number_of_objects = deleted
    return DeletePayload(deleted_instances=deleted)


def _name_subject(subjects: Subjects, type_name: TypeName, resource_id: str) -> None:
    """Say whom it concerns also where nothing is indexed any more."""
    if type_name == "Patient":
        subjects.patient_ids.add(resource_id)
    elif type_name == "Study":
        subjects.study_ids.add(resource_id)
