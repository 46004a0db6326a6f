"""Mutations that make studies of other studies: without identity, or with other values."""

from collections.abc import Mapping
from typing import Annotated, Any

import strawberry

from graph.context import Info
from graph.execution.audit import recorded
from graph.execution.authorization import RequiresRole
from graph.inputs import AnonymizeInput, NodeId, TagValue, values_of
from graph.relay import require_node_id
from graph.types.job import Job
from services.anonymization.modification import ModificationOptions
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

    @strawberry.mutation(
        description="Make a copy of a study with other values, with UIDs of its own. With "
        "`deleteSource` the study itself gets the values and keeps its UIDs. What was changed is "
        "noted in OriginalAttributesSequence (PS3.3 C.12.1.1.9.1).",
        extensions=[RequiresRole(Role.ADMIN)],
    )
    async def modify_study(
        self,
        info: Info,
        node_id: NodeId,
        replace: Annotated[
            list[TagValue], strawberry.argument(description="Attributes with their new values.")
        ],
        remove: Annotated[
            list[str] | None, strawberry.argument(description="Keywords of attributes to remove.")
        ] = None,
        *,
        delete_source: Annotated[
            bool,
            strawberry.argument(
                description="Change the study itself instead of a copy. With another PatientID the "
                "study is made under it, and removed from the former patient when all of it is "
                "stored."
            ),
        ] = False,
    ) -> Job:
        """Start to modify a study."""
        context = info.context
        principal = authorize(context.principal, Role.ADMIN)
        async with recorded(
            context.runtime.audit, Action.MODIFY, principal, detail="modifyStudy"
        ) as event:
            study = await _study(info, node_id, event)
            options = ModificationOptions(
                replace=values_of(replace), remove=remove or (), delete_source=delete_source
            )
            job = await context.runtime.modifications.start(
                study, options, principal, correlation_id=event.correlation_id
            )
            keywords = ",".join(sorted({*options.replace, *options.remove}))
            event.detail = f"modifyStudy job {job.id} {keywords}"
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
