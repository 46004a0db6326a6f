"""The mutations: uploads, deletions and the comparison with Orthanc."""

from typing import Annotated

import strawberry
from strawberry.file_uploads import Upload

from graph.context import Info
from graph.execution.audit import add_stored, recorded
from graph.execution.authorization import RequiresRole
from graph.http.multipart import UploadedFile
from graph.relay import TypeName, decode_node_id, require_node_id
from graph.types.sync import DeletePayload, SyncReport
from graph.types.upload import UploadDicomPayload
from services.audit import Action, AuditEvent
from services.auth.roles import Role
from services.deletion import Level
from services.dicom.patient_override import PatientOverride
from services.errors import InvalidInput, PacsDisabled
from services.ingest.service import SentFile

_LEVELS: dict[TypeName, Level] = {
    "Patient": Level.PATIENT,
    "Study": Level.STUDY,
    "Series": Level.SERIES,
    "Instance": Level.INSTANCE,
}

NodeId = Annotated[strawberry.ID, strawberry.argument(name="id", description="Its field `id`.")]


@strawberry.type(description="Everything that changes something.")
class Mutation:
    """The root of all mutations."""

    @strawberry.mutation(
        description="Store DICOM files and ZIP archives of them, by the GraphQL multipart request "
        "specification. Every file has its own result; one bad file never fails the others.",
        extensions=[RequiresRole(Role.UPLOADER)],
    )
    async def upload_dicom(
        self,
        info: Info,
        files: Annotated[
            list[Upload], strawberry.argument(description="DICOM files or ZIP archives of them.")
        ],
        patient_id: Annotated[
            str | None,
            strawberry.argument(
                name="patientID",
                description="Written into the stored files as PatientID; null, empty or blank "
                "keeps theirs.",
            ),
        ] = None,
        patient_name: Annotated[
            str | None,
            strawberry.argument(
                description="Written into the stored files as PatientName; null, empty or blank "
                "keeps theirs."
            ),
        ] = None,
        *,
        confirm_patient: Annotated[
            bool,
            strawberry.argument(
                description="Write `patientID` into the files although it is stored with another "
                "patient name. Without it such files are `REJECTED` with `PATIENT_MISMATCH`."
            ),
        ] = False,
    ) -> UploadDicomPayload:
        """Store files."""
        runtime, principal = info.context.runtime, info.context.principal
        async with recorded(runtime.audit, Action.UPLOAD, principal, detail="uploadDicom") as event:
            override = PatientOverride.of(patient_id, patient_name, is_confirmed=confirm_patient)
            sent = [_sent(file) for file in files]
            caller = principal.name if principal else None
            results = await runtime.ingest.store(sent, override, caller=caller)
            add_stored(event, results)
        return UploadDicomPayload.of(results)

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
        context = info.context
        async with recorded(
            context.runtime.audit, Action.SYNCHRONIZE, context.principal, detail="synchronize"
        ):
            sync = context.runtime.sync
            if sync is None:
                raise PacsDisabled
            return SyncReport.of(await sync.synchronize())


def _sent(file: object) -> SentFile:
    if not isinstance(file, UploadedFile):
        raise InvalidInput("Send `files` as parts of a multipart request, mapped to null.")
    return SentFile(file.name, file.open)


async def _delete(info: Info, type_name: TypeName, node_id: str) -> DeletePayload:
    runtime, principal = info.context.runtime, info.context.principal
    # An id of another type, or of nothing, is an attempt to delete as well.
    detail = " ".join([type_name, *(decode_node_id(node_id) or ("(no id)",))])
    async with recorded(runtime.audit, Action.DELETE, principal, detail=detail) as event:
        resource_id = require_node_id(type_name, node_id)
        event.detail = f"{type_name} {resource_id}"
        _name_subject(event, type_name, resource_id)
        if runtime.deletion is None:
            raise PacsDisabled
        doomed = await runtime.deletion.find(_LEVELS[type_name], resource_id)
        event.patient_ids |= doomed.patient_ids
        event.study_ids |= doomed.study_ids
        deleted = await runtime.deletion.delete(doomed)
        event.number_of_objects = deleted
    return DeletePayload(deleted_instances=deleted)


def _name_subject(event: AuditEvent, type_name: TypeName, resource_id: str) -> None:
    """Name the patient or study even where nothing of it is indexed any more."""
    if type_name == "Patient":
        event.patient_ids.add(resource_id)
    elif type_name == "Study":
        event.study_ids.add(resource_id)
