"""Mutations that make studies of other studies: without identity, or with other values."""

from collections.abc import Mapping
from typing import Annotated, Any

import strawberry

from graph.context import Info
from graph.execution.audit import recorded
from graph.execution.authorization import RequiresRole
from graph.inputs import AnonymizeInput, NodeId
from graph.relay import require_node_id
from graph.types.job import Job
from services.audit import Action, AuditEvent
from services.auth.roles import Role, authorize
from services.errors import NotFound, PacsDisabled


@strawberry.type
class AnonymizationMutation:
    """Root fields that make studies of other studies."""

    @strawberry.mutation(
        description="Make a copy of a study without the patient's identity, by PS3.15 E and "
        "beyond: see docs/anonymisation.md. The study itself stays; `results` of the job is the "
        "copy.",
        extensions=[RequiresRole(Role.UPLOADER)],
    )
    async def anonymize_study(
        self,
        info: Info,
        node_id: NodeId,
        how: Annotated[
            AnonymizeInput, strawberry.argument(name="input", description="How it is done.")
        ],
    ) -> Job:
        """Start to anonymise a study."""
        context = info.context
        principal = authorize(context.principal, Role.UPLOADER)
        async with recorded(
            context.runtime.audit, Action.ANONYMIZE, principal, detail="anonymizeStudy"
        ) as event:
            study = await _study(info, node_id, event)
            job = await context.runtime.anonymizations.start(
                study, how.to_options(), principal, correlation_id=event.correlation_id
            )
            event.detail = f"anonymizeStudy job {job.id}"
        return Job.of(job)


async def _study(info: Info, node_id: str, event: AuditEvent) -> Mapping[str, Any]:
    """Load a study that the caller sees, and name it in the record."""
    context = info.context
    if context.runtime.orthanc is None:
        raise PacsDisabled
    study_id = require_node_id("Study", node_id)
    study = await context.loaders.study_by_id.load(study_id)
    if study is None:
        raise NotFound("There is no such study.")
    event.study_ids.add(study_id)
    event.patient_ids.add(study["orthancPatientId"])
    return study
