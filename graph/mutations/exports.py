"""Mutations that export studies."""

from typing import Annotated

import strawberry

from graph.context import Info
from graph.execution.audit import recorded
from graph.execution.authorization import RequiresRole
from graph.relay import require_node_id
from graph.types.job import Job
from services.audit import Action
from services.auth.roles import Role, authorize
from services.errors import InvalidInput, NotFound, PacsDisabled
from services.exports.service import ExportFormat

_STUDIES_MAX = 100
"""Studies of one export, checked before they are looked up."""

strawberry.enum(
    ExportFormat,
    description="ZIP: files in folders by study and series. DICOMDIR: the same with a DICOMDIR, as "
    "on media (PS3.10).",
)

StudyIds = Annotated[
    list[strawberry.ID],
    strawberry.argument(name="ids", description="The `id`s of 1 to 100 studies."),
]
Arrangement = Annotated[
    ExportFormat, strawberry.argument(name="format", description="How it is arranged.")
]
TransferSyntax = Annotated[
    str | None,
    strawberry.argument(
        name="transferSyntaxUID",
        description="`1.2.840.10008.1.2.1` decodes compressed images, for viewers and media that "
        "know no compression; null: as they are stored.",
    ),
]


@strawberry.type
class ExportsMutation:
    """Root fields that export studies."""

    @strawberry.mutation(
        description="Prepare a download of one or several studies: `url` of the job, when it has "
        "succeeded, is a ZIP. Its names hold no patient data.",
        extensions=[RequiresRole(Role.VIEWER)],
    )
    async def export_studies(
        self,
        info: Info,
        node_ids: StudyIds,
        *,
        arrangement: Arrangement = ExportFormat.ZIP,
        transfer_syntax_uid: TransferSyntax = None,
    ) -> Job:
        """Start an export."""
        info.context.require_download()
        return await _start(
            info, node_ids, arrangement, transfer_syntax_uid, role=Role.VIEWER, to_folder=False
        )

    @strawberry.mutation(
        description="Write studies into a folder of the server: `EXPORT_FOLDER` of its settings, "
        "in a folder with the name of `Job.folder`.",
        extensions=[RequiresRole(Role.ADMIN)],
    )
    async def export_to_folder(
        self,
        info: Info,
        node_ids: StudyIds,
        *,
        arrangement: Arrangement = ExportFormat.ZIP,
        transfer_syntax_uid: TransferSyntax = None,
    ) -> Job:
        """Start an export into the folder."""
        return await _start(
            info, node_ids, arrangement, transfer_syntax_uid, role=Role.ADMIN, to_folder=True
        )


async def _start(
    info: Info,
    node_ids: list[strawberry.ID],
    arrangement: ExportFormat,
    transfer_syntax_uid: str | None,
    *,
    role: Role,
    to_folder: bool,
) -> Job:
    context = info.context
    principal = authorize(context.principal, role)
    name = "exportToFolder" if to_folder else "exportStudies"
    async with recorded(context.runtime.audit, Action.EXPORT, principal, detail=name) as event:
        if context.runtime.orthanc is None:
            raise PacsDisabled
        if len(node_ids) > _STUDIES_MAX:
            raise InvalidInput(f"ids: 1 to {_STUDIES_MAX} studies.", argument="ids")
        study_ids = [require_node_id("Study", one) for one in dict.fromkeys(node_ids)]
        found = await context.loaders.study_by_id.load_many(study_ids)
        studies = [study for study in found if study is not None]
        if len(studies) < len(study_ids):
            raise NotFound("There is no such study.")
        event.study_ids.update(study_ids)
        event.patient_ids.update(study["orthancPatientId"] for study in studies)
        job = await context.runtime.exports.start(
            studies,
            arrangement,
            principal,
            transfer_syntax_uid=transfer_syntax_uid,
            to_folder=to_folder,
            correlation_id=event.correlation_id,
        )
        event.detail = f"{name} job {job.id}"
    return Job.of(job)
