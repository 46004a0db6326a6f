"""The modality worklist: examinations that are planned."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Self

import strawberry

from graph.context import Info
from graph.relay import Connection, Edge, Node, counted_once, encode_node_id, page_info_of
from graph.types.scalars import Date, Time
from graph.types.study import Study
from models import WorklistEntryDocument
from models.worklist import WorklistStatus
from services.dicom.person_names import display_name
from services.orthanc.identifiers import orthanc_ids, orthanc_patient_id
from services.query.paging import Page

__all__ = ["WorklistConnection", "WorklistEdge", "WorklistEntry", "WorklistStatus", "log_entries"]

strawberry.enum(
    WorklistStatus,
    description="How far a planned examination is. Scanners get those that are SCHEDULED or "
    "IN_PROGRESS.",
)


@strawberry.type(
    description="A planned examination that scanners can ask for (PS3.4 K). It becomes COMPLETED "
    "by itself when its study has arrived and nothing new comes: a study of the same patient with "
    "its StudyInstanceUID, or with its AccessionNumber and modality."
)
class WorklistEntry(Node):
    """One entry."""

    status: WorklistStatus = strawberry.field(description="How far it is.")
    accession_number: str = strawberry.field(description="AccessionNumber: the order.")
    patient_id: str = strawberry.field(description="PatientID.")
    issuer_of_patient_id: str | None = strawberry.field(
        description="IssuerOfPatientID: who assigned the PatientID."
    )
    patient_name: str = strawberry.field(
        description="PatientName: `family^given^middle^prefix^suffix`, in up to three groups."
    )
    patient_birth_date: Date | None = strawberry.field(description="PatientBirthDate.")
    patient_sex: str | None = strawberry.field(description="PatientSex: `M`, `F` or `O`.")
    study_instance_uid: str = strawberry.field(
        description="Given to the scanner; its images come back under it."
    )
    referring_physician_name: str | None = strawberry.field(description="ReferringPhysicianName.")
    requested_procedure_id: str = strawberry.field(description="RequestedProcedureID.")
    requested_procedure_description: str | None = strawberry.field(
        description="RequestedProcedureDescription."
    )
    modality: str = strawberry.field(description="Modality of the scanner, as `CT`.")
    scheduled_station_ae_title: str | None = strawberry.field(
        description="AE title of the scanner; null: any that asks for no AE title."
    )
    scheduled_procedure_step_id: str = strawberry.field(description="ScheduledProcedureStepID.")
    scheduled_procedure_step_start_date: Date = strawberry.field(
        description="Day for which it is planned."
    )
    scheduled_procedure_step_start_time: Time | None = strawberry.field(
        description="Time of day, local to the scanner."
    )
    scheduled_procedure_step_description: str | None = strawberry.field(
        description="What the scanner is to do."
    )
    scheduled_performing_physician_name: str | None = strawberry.field(
        description="ScheduledPerformingPhysicianName."
    )
    created_at: datetime = strawberry.field(description="When it was made.")
    updated_at: datetime = strawberry.field(description="When it last changed.")
    orthanc_study_id: strawberry.Private[str | None]

    @classmethod
    def of(cls, entry: WorklistEntryDocument) -> Self:
        """Show an entry."""
        shown = {
            name: getattr(entry, name)
            for name in WorklistEntryDocument.model_fields
            if name in cls.__dataclass_fields__ and name != "id"
        }
        return cls(id=encode_node_id("WorklistEntry", entry.id), **shown)

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Self:
        """Show an entry as MongoDB returns it."""
        return cls.of(WorklistEntryDocument.model_validate(stored))

    @strawberry.field(
        description="PatientName for people, in the order that its script is read in."
    )
    def patient_display_name(self) -> str | None:
        """Write the name for people."""
        return display_name(self.patient_name)

    @strawberry.field(
        description="The study that came; null so far. It may still grow while the entry is open."
    )
    async def study(self, info: Info) -> Study | None:
        """Load the study."""
        context = info.context
        study_id = self.orthanc_study_id or (
            orthanc_ids(self.patient_id, self.study_instance_uid, "", "").study
        )
        stored = await context.loaders.study_by_id.load(study_id)
        if stored is None:
            return None
        context.show([stored], "Study")
        return Study.from_stored(stored)


def log_entries(info: Info, entries: list[WorklistEntryDocument]) -> None:
    """Count entries of an answer, and log their patients for the audit trail.

    Raises:
        LimitExceeded: The answer grows too large.
    """
    info.context.count_nodes(len(entries))
    info.context.accesses.patient_ids.update(orthanc_patient_id(one.patient_id) for one in entries)


@strawberry.type(description="An entry with its place in the worklist.")
class WorklistEdge(Edge[WorklistEntry]):
    """An entry of the worklist."""


@strawberry.type(description="A page of the worklist.")
class WorklistConnection(Connection[WorklistEntry]):
    """A page of the worklist."""

    edges: list[WorklistEdge] = strawberry.field(  # type: ignore[assignment]  # a list that is only read
        description="The entries of the page with their cursors."
    )

    @classmethod
    def of(
        cls, page: Page, entries: list[WorklistEntryDocument], count: Callable[[], Awaitable[int]]
    ) -> Self:
        """Make the answer for a page.

        Args:
            page: Cursors.
            entries: The documents of the page.
            count: Counts the whole list, when asked.
        """
        return cls(
            edges=[
                WorklistEdge(cursor=cursor, node=WorklistEntry.of(entry))
                for cursor, entry in zip(page.cursors, entries, strict=True)
            ],
            page_info=page_info_of(page),
            count=counted_once(count),
        )
