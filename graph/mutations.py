"""The mutations."""

from typing import Annotated

import strawberry
from strawberry.file_uploads import Upload

from graph.auditing import recorded
from graph.authorization import RequiresRole
from graph.context import Info
from graph.types.upload import UploadDicomPayload
from graph.uploaded_file import UploadedFile
from services.access import Role
from services.deeds import Action
from services.errors import InvalidInput
from services.ingest.service import SentFile
from services.ingest.storing import PatientOverride


@strawberry.type
class UploadMutation:
    """Storing files."""

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
                name="patientID", description="Written into the stored files as PatientID."
            ),
        ] = None,
        patient_name: Annotated[
            str | None,
            strawberry.argument(description="Written into the stored files as PatientName."),
        ] = None,
    ) -> UploadDicomPayload:
        """Store files."""
        runtime, principal = info.context.runtime, info.context.principal
        override = PatientOverride(patient_id, patient_name)
        async with recorded(
            runtime.audit, Action.UPLOAD, principal, detail="uploadDicom"
        ) as subjects:
            results = await runtime.ingest.store([_sent(file) for file in files], override)
            subjects.add_stored(results)
        return UploadDicomPayload.of(results)


def _sent(file: object) -> SentFile:
    if not isinstance(file, UploadedFile):
        raise InvalidInput("Send `files` as parts of a multipart request, mapped to null.")
    return SentFile(file.name, file.open)
