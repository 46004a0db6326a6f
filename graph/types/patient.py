"""Patients and their studies."""

from typing import Annotated, ClassVar

import strawberry

from graph.context import Info, Level
from graph.relay import Node
from graph.types.scalars import Date
from graph.types.stored import FromStored
from graph.types.study import StudyConnection
from models import PatientDocument, StoredDocument
from services.dicom.person_names import display_name
from services.query.filters import StudyCriteria
from services.query.paging import PageRequest


@strawberry.type(
    description="One PatientID. Name, birth date, sex and issuer are those of the study whose "
    "newest file came last."
)
class Patient(FromStored, Node):
    """One stored patient."""

    document_class: ClassVar[type[StoredDocument]] = PatientDocument
    identified_by: ClassVar[str] = "orthanc_patient_id"
    type_name: ClassVar[Level] = "Patient"

    orthanc_patient_id: str = strawberry.field(
        description="Orthanc's identifier of the PatientID without padding: the path "
        "`/patients/{id}` of its REST API. Orthanc has a patient of its own for each way in which "
        "files pad it, spaces at the end apart; the studies of all are among `studies`."
    )
    patient_id: str = strawberry.field(
        description='PatientID (0010,0020); `""` when the files carry none.'
    )
    patient_name: str | None = strawberry.field(
        description="PatientName (0010,0010), decoded by its character set: "
        "`Yamada^Tarou=山田^太郎`."
    )
    patient_birth_date: Date | None = strawberry.field(description="PatientBirthDate (0010,0030).")
    patient_sex: str | None = strawberry.field(
        description="PatientSex (0010,0040): `M`, `F` or `O`."
    )
    issuer_of_patient_id: str | None = strawberry.field(
        description="IssuerOfPatientID (0010,0021): who assigned the PatientID."
    )
    has_conflicting_demographics: bool = strawberry.field(
        description="Files under this PatientID disagree on name, birth date, sex or issuer: "
        "it may stand for two people. Case, spaces and component groups that only some files have "
        "are no disagreement."
    )
    number_of_studies: int = strawberry.field(description="Studies that are stored.")

    @strawberry.field(description="The name for people: `Tarou Yamada (山田 太郎)`.")
    def patient_display_name(self) -> str | None:
        """Write the name as people do."""
        return display_name(self.patient_name)

    @strawberry.field(description="The studies, newest `studyDate` first.")
    async def studies(
        self,
        info: Info,
        first: Annotated[int, strawberry.argument(description="How many at most.")] = 20,
        after: Annotated[
            str | None, strawberry.argument(description="Continue behind this cursor.")
        ] = None,
    ) -> StudyConnection:
        """Load a page of the studies."""
        key = (self.orthanc_patient_id, PageRequest(first=first, after=after))
        page = await info.context.loaders.studies_by_patient_id.load(key)
        info.context.show(page.documents, "Study")
        criteria = StudyCriteria(
            scope=info.context.scope, orthanc_patient_id=self.orthanc_patient_id
        )
        return StudyConnection.of(page, criteria, self._count_studies)

    async def _count_studies(self) -> int:
        return self.number_of_studies
