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
        node_ids: Annotated[
            list[strawberry.ID],
            strawberry.argument(name="ids", description="The `id`s of 1 to 100 studies."),
        ],
        *,
        arrangement: Annotated[
            ExportFormat, strawberry.argument(name="format", description="How it is arranged.")
        ] = ExportFormat.ZIP,
        transfer_syntax_uid: Annotated[
            str | None,
            strawberry.argument(
                name="transferSyntaxUID",
                description="`1.2.840.10008.1.2.1` decodes compressed images, for viewers and "
                "media that know no compression; null: as they are stored.",
            ),
        ] = None,
    ) -> Job:
        """Start an export."""
        context = info.context
        principal = authorize(context.principal, Role.VIEWER)
        context.require_download()
        async with recorded(
            context.runtime.audit, Action.EXPORT, principal, detail="exportStudies"
        ) as event:
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
                correlation_id=event.correlation_id,
            )
            event.detail = f"exportStudies job {job.id}"
        return Job.of(job)
