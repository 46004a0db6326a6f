"""Mutations of what is stored: uploads, deletions, labels and the comparison with Orthanc."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import strawberry
from strawberry.file_uploads import Upload

from graph.context import Info
from graph.context import Level as LevelName
from graph.execution.audit import add_stored, recorded
from graph.execution.authorization import RequiresRole
from graph.http.multipart import UploadedFile
from graph.inputs import NodeId
from graph.relay import decode_node_id, encode_node_id, require_node_id
from graph.types.study import Study
from graph.types.sync import DeletePayload, SyncReport
from graph.types.upload import UploadDicomPayload
from services.audit import Action, AuditEvent
from services.auth.roles import Role, authorize
from services.deletion import Level
from services.dicom.patient_override import PatientOverride
from services.errors import InvalidInput, NotFound, PacsDisabled
from services.ingest.results import StoreResult
from services.ingest.service import SentFile

_LEVELS: dict[LevelName, Level] = {
    "Patient": Level.PATIENT,
    "Study": Level.STUDY,
    "Series": Level.SERIES,
    "Instance": Level.INSTANCE,
}

_OBJECTS_OF_A_RESULT = 5
"""An error, an instance, its series, its study and its patient."""

StudyLabels = Annotated[
    list[str],
    strawberry.argument(description="1 to 100 labels of 1 to 64 printable characters."),
]


@strawberry.type
class ArchiveMutation:
    """Root fields that change what is stored."""

    @strawberry.mutation(
        description="Store DICOM files and ZIP archives of them, by the GraphQL multipart request "
        "specification. Every file has its own result; an invalid file does not affect the "
        "others. With a header `Upload-Id`, `uploadProgress` follows it.",
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
            begun = datetime.now(UTC)
            results = await _stored(info, sent, override)
            add_stored(event, results)
            await runtime.labels.adopt(event.study_ids, info.context.scope, created_since=begun)
        # The files are stored: refused for its length, the answer would hide what became of them.
        info.context.allow_nodes(len(results) * _OBJECTS_OF_A_RESULT)
        return await UploadDicomPayload.of(results)

    @strawberry.mutation(
        description="Delete a patient with all studies, in Orthanc and here.",
        extensions=[RequiresRole(Role.ADMIN)],
    )
    async def delete_patient(self, info: Info, node_id: NodeId) -> DeletePayload:
        """Delete a patient."""
        return await _delete(info, "Patient", node_id)

    @strawberry.mutation(
        description="Delete a study, in Orthanc and here, and its patient if it becomes empty.",
        extensions=[RequiresRole(Role.ADMIN)],
    )
    async def delete_study(self, info: Info, node_id: NodeId) -> DeletePayload:
        """Delete a study."""
        return await _delete(info, "Study", node_id)

    @strawberry.mutation(
        description="Delete a series, in Orthanc and here, and parents that become empty.",
        extensions=[RequiresRole(Role.ADMIN)],
    )
    async def delete_series(self, info: Info, node_id: NodeId) -> DeletePayload:
        """Delete a series."""
        return await _delete(info, "Series", node_id)

    @strawberry.mutation(
        description="Delete an instance, in Orthanc and here, and parents that become empty.",
        extensions=[RequiresRole(Role.ADMIN)],
    )
    async def delete_instance(self, info: Info, node_id: NodeId) -> DeletePayload:
        """Delete an instance."""
        return await _delete(info, "Instance", node_id)

    @strawberry.mutation(
        description="Add labels to a study. Callers who are limited to labels can only use these.",
        extensions=[RequiresRole(Role.UPLOADER)],
    )
    async def add_labels(self, info: Info, node_id: NodeId, labels: StudyLabels) -> Study:
        """Give labels."""
        return await _label(info, "addLabels", node_id, labels)

    @strawberry.mutation(
        description="Remove labels from a study.",
        extensions=[RequiresRole(Role.UPLOADER)],
    )
    async def remove_labels(self, info: Info, node_id: NodeId, labels: StudyLabels) -> Study:
        """Take labels."""
        return await _label(info, "removeLabels", node_id, labels)

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


async def _label(info: Info, name: str, node_id: str, labels: list[str]) -> Study:
    context = info.context
    principal = authorize(context.principal, Role.UPLOADER)
    async with recorded(context.runtime.audit, Action.LABEL, principal, detail=name) as event:
        study_id = require_node_id("Study", node_id)
        study = await context.loaders.study_by_id.load(study_id)
        if study is None:
            raise NotFound("There is no such study.")
        event.study_ids.add(study_id)
        event.patient_ids.add(study["orthancPatientId"])
        service = context.runtime.labels
        change = service.add if name == "addLabels" else service.remove
        labelled = await change(study_id, labels, context.scope)
        event.detail = f"{name} {', '.join(labels)}"
    context.show([labelled], "Study")
    return Study.from_stored(labelled)


async def _stored(
    info: Info, sent: Sequence[SentFile], override: PatientOverride
) -> list[StoreResult]:
    context = info.context
    runtime, sender = context.runtime, authorize(context.principal, Role.UPLOADER)
    async with runtime.upload_progress.recorded(context.upload_id, sender) as counts:
        return await runtime.ingest.store(sent, override, caller=sender.name, counts=counts)


def _sent(file: object) -> SentFile:
    if not isinstance(file, UploadedFile):
        message = "Send `files` as parts of a multipart request, mapped to null."
        raise InvalidInput(message, argument="files")
    return SentFile(file.name, file.open)


async def _delete(info: Info, type_name: LevelName, node_id: str) -> DeletePayload:
    runtime, principal = info.context.runtime, info.context.principal
    # An id of another type, or of nothing, is an attempt to delete as well.
    detail = " ".join([type_name, *(decode_node_id(node_id) or ("(no id)",))])
    async with recorded(runtime.audit, Action.DELETE, principal, detail=detail) as event:
        resource_id = require_node_id(type_name, node_id)
        event.detail = f"{type_name} {resource_id}"
        _name_subject(event, type_name, resource_id)
        if runtime.deletion is None:
            raise PacsDisabled
        plan = await runtime.deletion.find(_LEVELS[type_name], resource_id)
        event.patient_ids |= plan.patient_ids
        event.study_ids |= plan.study_ids
        deleted = await runtime.deletion.delete(plan)
        event.number_of_objects = len(deleted[Level.INSTANCE])
    return DeletePayload(
        deleted_instances=len(deleted[Level.INSTANCE]),
        deleted_ids=[
            encode_node_id(name, identifier)
            for name, level in _LEVELS.items()
            for identifier in sorted(deleted[level])
        ],
    )


def _name_subject(event: AuditEvent, type_name: LevelName, resource_id: str) -> None:
    """Name the patient or study even where nothing of it is indexed any more."""
    if type_name == "Patient":
        event.patient_ids.add(resource_id)
    elif type_name == "Study":
        event.study_ids.add(resource_id)
