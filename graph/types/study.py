"""Studies: what worklists show and trees start from."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import strawberry

from graph.context import Info, Level
from graph.relay import Connection, Count, Node, counted_once, edges_of, page_info_of
from graph.types.frame import Frame, frame_of_thumbnail
from graph.types.scalars import Date, Time
from graph.types.series import Series
from graph.types.stored import FromStored
from models import StoredDocument, StudyDocument
from services.auth.roles import Role
from services.dicom.person_names import display_name
from services.errors import InvalidInput
from services.frames.signing import study_revision
from services.index.statements import are_contradictory
from services.query.filters import StudyCriteria
from services.query.paging import Page
from services.query.tree import Priors

if TYPE_CHECKING:
    from graph.types.job import Job
    from graph.types.patient import Patient


@strawberry.type(
    description="A study of one patient. Two studies of one StudyInstanceUID under different "
    "PatientIDs are two studies."
)
class Study(FromStored, Node):
    """One stored study."""

    document_class: ClassVar[type[StoredDocument]] = StudyDocument
    identified_by: ClassVar[str] = "orthanc_study_id"
    type_name: ClassVar[Level] = "Study"

    orthanc_study_id: str = strawberry.field(
        description="Orthanc's identifier: the path `/studies/{id}` of its REST API."
    )
    study_instance_uid: str = strawberry.field(description="StudyInstanceUID (0020,000D).")
    study_id: str | None = strawberry.field(description="StudyID (0020,0010).")
    study_date: Date | None = strawberry.field(description="StudyDate (0008,0020).")
    study_time: Time | None = strawberry.field(description="StudyTime (0008,0030).")
    study_description: str | None = strawberry.field(description="StudyDescription (0008,1030).")
    accession_number: str | None = strawberry.field(description="AccessionNumber (0008,0050).")
    referring_physician_name: str | None = strawberry.field(
        description="ReferringPhysicianName (0008,0090), as stored: `Smith^Anna`."
    )
    institution_name: str | None = strawberry.field(description="InstitutionName (0008,0080).")
    modalities_in_study: list[str] = strawberry.field(
        description="The modalities of its series, each once."
    )
    number_of_series: int = strawberry.field(description="Series that are stored.")
    number_of_instances: int = strawberry.field(description="Instances that are stored.")
    number_of_frames: int = strawberry.field(
        description="Frames of all its instances that can be shown."
    )
    total_bytes: float = strawberry.field(description="Size of its stored DICOM files, in bytes.")
    patient_name: str | None = strawberry.field(
        description="PatientName (0010,0010) as most files of this study say. Show this one with "
        "the study: `patient` carries the name of the study whose newest file came last; one "
        "PatientID may stand for two people."
    )
    patient_birth_date: Date | None = strawberry.field(
        description="PatientBirthDate (0010,0030) as the files of this study say."
    )
    patient_sex: str | None = strawberry.field(
        description="PatientSex (0010,0040) as the files of this study say."
    )
    issuer_of_patient_id: str | None = strawberry.field(
        description="IssuerOfPatientID (0010,0021) as the files of this study say: one PatientID "
        "of two issuers stands for two people."
    )
    patient_age: str | None = strawberry.field(
        description="PatientAge (0010,1010) at the time of the study, such as `034Y`."
    )
    created_at: datetime = strawberry.field(description="When this server first saw the study.")
    updated_at: datetime = strawberry.field(description="When anything in the study last changed.")
    orthanc_patient_id: strawberry.Private[str]
    patient_id: strawberry.Private[str]
    labels: strawberry.Private[list[str]]
    demographics_of_files: strawberry.Private[list[dict[str, str]]]
    thumbnail: strawberry.Private[dict[str, Any] | None]

    @strawberry.field(description="The patient that the study belongs to.")
    async def patient(
        self, info: Info
    ) -> Annotated["Patient", strawberry.lazy("graph.types.patient")]:
        """Load the patient."""
        from graph.types.patient import Patient  # noqa: PLC0415  # the levels refer to each other

        stored = await info.context.loaders.patient_by_id.load(self.orthanc_patient_id)
        # A new patient is written a moment after the first study.
        return Patient.from_stored(stored or self._described_patient())

    @strawberry.field(description="The name in this study's files, for people: `Tarou Yamada`.")
    def patient_display_name(self) -> str | None:
        """Write the name as people do."""
        return display_name(self.patient_name)

    @strawberry.field(
        name="otherStudiesWithThisUID",
        description="Studies of the same StudyInstanceUID under another PatientID, newest change "
        "first; `[]` nearly always. Ask their sender which patient is the right one.",
    )
    async def other_studies_with_this_uid(
        self, info: Info
    ) -> list[Annotated["Study", strawberry.lazy("graph.types.study")]]:
        """Load the studies that share the UID."""
        alike = await info.context.loaders.studies_by_uid.load(self.study_instance_uid)
        others = [study for study in alike if study["_id"] != self.orthanc_study_id]
        info.context.show(others, "Study")
        return [Study.from_stored(study) for study in others]

    @strawberry.field(
        description="Earlier studies of the patient, newest first; none for a study without a "
        "date. Studies without a date are left out."
    )
    async def priors(
        self,
        info: Info,
        first: Annotated[int, strawberry.argument(description="How many at most.")] = 10,
        modality: Annotated[
            str | None,
            strawberry.argument(description="Only those with a series of this one, as `CT`."),
        ] = None,
    ) -> list[Annotated["Study", strawberry.lazy("graph.types.study")]]:
        """Load the earlier studies."""
        asked = Priors(first, modality)
        maximum = info.context.runtime.settings.page_max_size
        if not 0 <= first <= maximum:
            raise InvalidInput(f"`first` of `priors` is 0 to {maximum}.")
        if not first:
            return []
        priors = await info.context.loaders.priors_by_study_id.load((self.orthanc_study_id, asked))
        info.context.show(priors, "Study")
        return [Study.from_stored(prior) for prior in priors]

    @strawberry.field(description="The series by `seriesNumber`, then `seriesInstanceUID`.")
    async def series(self, info: Info) -> list[Series]:
        """Load the series."""
        info.context.count_nodes(self.number_of_series)
        stored = await info.context.loaders.series_by_study_id.load(self.orthanc_study_id)
        info.context.count_nodes(len(stored) - self.number_of_series)
        return await info.context.turns.map(Series.from_stored, stored)

    @strawberry.field(
        name="thumbnail",
        description="The middle frame of the first series that has frames to show; null when none "
        "has.",
    )
    def thumbnail_frame(self) -> Frame | None:
        """Return the frame that stands for the study."""
        return frame_of_thumbnail(self.thumbnail)

    @strawberry.field(
        name="labels",
        description="Labels that people gave the study, in the order given. Callers who are "
        "limited to labels see these only, holders of shares none.",
    )
    def visible_labels(self, info: Info) -> list[str]:
        """Return the labels that the caller may know of."""
        return info.context.scope.visible_labels(self.labels)

    @strawberry.field(
        description="A signed URL of the study as ZIP archive, valid for 30 to 40 minutes unless "
        "the server is set otherwise. It works in a link, with no header and no cookie. A share "
        "that does not allow downloads has none: `FORBIDDEN`."
    )
    def archive_url(self, info: Info) -> str:
        """Mint the URL; no I/O."""
        context = info.context
        context.require_download()
        context.accesses.minted["Study.archiveUrl"] += 1
        signer = context.runtime.frames.signer
        revision = study_revision(self.created_at)
        signed = signer.archive_path(
            self.orthanc_study_id, revision, now=context.now(), grant=context.grant
        )
        return context.base_url + signed.path

    @strawberry.field(
        description="The study that this one is an anonymised copy of, for administrators; null "
        "for all others, for studies that are none, and when the source was deleted."
    )
    async def anonymized_from(
        self, info: Info
    ) -> Annotated["Study", strawberry.lazy("graph.types.study")] | None:
        """Load the source."""
        context = info.context
        if context.principal is None or context.principal.role < Role.ADMIN:
            return None
        source_id = await context.loaders.source_by_study_id.load(self.orthanc_study_id)
        source = source_id and await context.loaders.study_by_id.load(source_id)
        if not source:
            return None
        context.show([source], "Study")
        return Study.from_stored(source)

    @strawberry.field(
        description="The newest 20 jobs about the study, and those that it came of: of the caller, "
        "and to administrators of everybody."
    )
    async def jobs(self, info: Info) -> list[Annotated["Job", strawberry.lazy("graph.types.job")]]:
        """Load the jobs."""
        from graph.types.job import Job  # noqa: PLC0415  # a job has studies, a study has jobs

        jobs = await info.context.loaders.jobs_by_study_id.load(self.orthanc_study_id)
        info.context.count_nodes(len(jobs))
        return [Job.from_stored(job) for job in jobs]

    def _described_patient(self) -> dict[str, Any]:
        """Return the patient as this study alone describes them, by stored names."""
        return {
            "_id": self.orthanc_patient_id,
            "patientID": self.patient_id,
            "patientName": self.patient_name,
            "patientBirthDate": self.patient_birth_date,
            "patientSex": self.patient_sex,
            "issuerOfPatientID": self.issuer_of_patient_id,
            "hasConflictingDemographics": are_contradictory(self.demographics_of_files),
            "numberOfStudies": 1,
        }


@strawberry.type(description="How many studies have a label.")
class LabelCount:
    """A label."""

    label: str = strawberry.field(description="The label.")
    number_of_studies: int = strawberry.field(description="Studies that have it.")


@strawberry.type(description="How many studies of a list have a modality.")
class ModalityCount:
    """A modality of a list of studies."""

    modality: str = strawberry.field(description="Modality (0008,0060), such as `CT`.")
    count: int = strawberry.field(description="Studies with at least one series of it.")


@strawberry.type(description="A page of a list of studies.")
class StudyConnection(Connection[Study]):
    """A page of a list of studies."""

    criteria: strawberry.Private[StudyCriteria]

    @strawberry.field(
        description="How many studies of the whole list have each modality, the most frequent "
        "first. Counted when it is asked for: leave it out where it isn't shown."
    )
    async def modality_counts(self, info: Info) -> list[ModalityCount]:
        """Count the modalities of the list."""
        counts = await info.context.runtime.lists.studies.modality_counts(self.criteria)
        return [ModalityCount(modality=modality, count=count) for modality, count in counts]

    @classmethod
    def of(cls, page: Page, criteria: StudyCriteria, count: Count) -> "StudyConnection":
        """Make the answer for a page.

        Args:
            page: Studies with their cursors.
            criteria: Of the whole list.
            count: Counts the whole list, when asked.
        """
        return cls(
            edges=edges_of(page, Study.from_stored),
            page_info=page_info_of(page),
            count=counted_once(count),
            criteria=criteria,
        )
