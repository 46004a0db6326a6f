"""What modalities answer to queries."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Self, cast

import strawberry
from strawberry.scalars import JSON

from graph.context import Info
from graph.types.job import Job
from graph.types.scalars import Date, Time
from graph.types.study import Study
from models import JobDocument, JobKind
from services.auth.roles import Principal
from services.dicom.person_names import display_name
from services.dicom.values import clean_identifier
from services.jobs.service import Jobs
from services.modalities.query import (
    RemotePatientRecord,
    RemoteSeriesRecord,
    RemoteStudyRecord,
    RemoteWorklistRecord,
)
from services.modalities.service import Modalities


class SeriesOfStudies:
    """The series of the studies of one answer, asked for together when the first are wanted.

    Args:
        modalities: Asks.
        modality: Whom.
        study_instance_uids: All studies of the answer.
    """

    def __init__(
        self, modalities: Modalities, modality: str, study_instance_uids: Sequence[str]
    ) -> None:
        self._modalities = modalities
        self._modality = modality
        self._uids = list(dict.fromkeys(study_instance_uids))
        self._lock = asyncio.Lock()
        self._found: Mapping[str, list[RemoteSeriesRecord]] | None = None

    async def of(self, study_instance_uid: str) -> list[RemoteSeriesRecord]:
        """Return the series of a study of the answer."""
        async with self._lock:
            if self._found is None:
                self._found = await self._modalities.find_series(self._modality, self._uids)
        return self._found[study_instance_uid]


class RetrievesOfStudies:
    """The retrieves under way of the studies of one answer, looked up together.

    Args:
        jobs: Finds them.
        modality: From whom.
        study_instance_uids: All studies of the answer.
        principal: Who asks.
    """

    def __init__(
        self,
        jobs: Jobs,
        modality: str,
        study_instance_uids: Sequence[str],
        principal: Principal,
    ) -> None:
        self._jobs = jobs
        self._modality = modality
        self._uids = list(dict.fromkeys(study_instance_uids))
        self._principal = principal
        self._lock = asyncio.Lock()
        self._found: list[JobDocument] | None = None

    async def of(self, study_instance_uid: str) -> JobDocument | None:
        """Return the oldest retrieve under way of a study of the answer."""
        async with self._lock:
            if self._found is None:
                self._found = await self._jobs.active(
                    kind=JobKind.RETRIEVE,
                    modality=self._modality,
                    study_instance_uids=self._uids,
                    principal=self._principal,
                )
        about = (job for job in self._found if study_instance_uid in job.study_instance_uids)
        return next(about, None)


@strawberry.type(description="A series, as a modality answers.")
class RemoteSeries:
    """A series at a modality."""

    series_instance_uid: str = strawberry.field(description="SeriesInstanceUID (0020,000E).")
    series_number: int | None = strawberry.field(description="SeriesNumber (0020,0011).")
    modality: str | None = strawberry.field(description="Modality (0008,0060).")
    series_description: str | None = strawberry.field(description="SeriesDescription (0008,103E).")
    body_part_examined: str | None = strawberry.field(description="BodyPartExamined (0018,0015).")
    number_of_instances: int | None = strawberry.field(
        description="NumberOfSeriesRelatedInstances (0020,1209); null when it does not say."
    )

    @classmethod
    def of(cls, record: RemoteSeriesRecord) -> Self:
        """Show a series."""
        return cls(
            series_instance_uid=record.series_instance_uid,
            series_number=record.series_number,
            modality=record.modality,
            series_description=record.series_description,
            body_part_examined=record.body_part_examined,
            number_of_instances=record.number_of_instances,
        )


@strawberry.type(description="A study, as a modality answers.")
class RemoteStudy:
    """A study at a modality."""

    study_instance_uid: str = strawberry.field(description="StudyInstanceUID (0020,000D).")
    patient_id: str | None = strawberry.field(description="PatientID (0010,0020).")
    patient_name: str | None = strawberry.field(
        description="PatientName (0010,0010), as it came: `Yamada^Tarou=山田^太郎`."
    )
    patient_birth_date: Date | None = strawberry.field(description="PatientBirthDate (0010,0030).")
    patient_sex: str | None = strawberry.field(description="PatientSex (0010,0040).")
    study_date: Date | None = strawberry.field(description="StudyDate (0008,0020).")
    study_time: Time | None = strawberry.field(description="StudyTime (0008,0030).")
    accession_number: str | None = strawberry.field(description="AccessionNumber (0008,0050).")
    study_description: str | None = strawberry.field(description="StudyDescription (0008,1030).")
    modalities_in_study: list[str] = strawberry.field(
        description="ModalitiesInStudy (0008,0061); empty when it does not say."
    )
    number_of_series: int | None = strawberry.field(
        description="NumberOfStudyRelatedSeries (0020,1206); null when it does not say."
    )
    number_of_instances: int | None = strawberry.field(
        description="NumberOfStudyRelatedInstances (0020,1208); null when it does not say."
    )
    series_of_studies: strawberry.Private[SeriesOfStudies]
    retrieves_of_studies: strawberry.Private[RetrievesOfStudies]

    @classmethod
    def of(
        cls, record: RemoteStudyRecord, series: SeriesOfStudies, retrieves: RetrievesOfStudies
    ) -> Self:
        """Show a study."""
        return cls(
            study_instance_uid=record.study_instance_uid,
            patient_id=record.patient_id,
            patient_name=record.patient_name,
            patient_birth_date=_date(record.patient_birth_date),
            patient_sex=record.patient_sex,
            study_date=_date(record.study_date),
            study_time=None if record.study_time is None else Time(record.study_time),
            accession_number=record.accession_number,
            study_description=record.study_description,
            modalities_in_study=record.modalities_in_study,
            number_of_series=record.number_of_series,
            number_of_instances=record.number_of_instances,
            series_of_studies=series,
            retrieves_of_studies=retrieves,
        )

    @strawberry.field(description="The name for people: `Tarou Yamada (山田 太郎)`.")
    def patient_display_name(self) -> str | None:
        """Write the name as people do."""
        return display_name(self.patient_name)

    @strawberry.field(
        description="The same study of the same PatientID here; null when there is none."
    )
    async def study(self, info: Info) -> Study | None:
        """Find the study."""
        context = info.context
        alike = await context.loaders.studies_by_uid.load(self.study_instance_uid)
        # A study of this UID under another PatientID is another study: it may be another person.
        for stored in alike:
            is_same = self.patient_id is None or self.patient_id == clean_identifier(
                stored["patientID"]
            )
            if is_same:
                context.show([stored], "Study")
                return Study.from_stored(stored)
        return None

    @strawberry.field(
        description="A retrieve of it that is under way and that the caller may know of; null when "
        "there is none."
    )
    async def job(self, info: Info) -> Job | None:
        """Find the retrieve."""
        del info
        found = await self.retrieves_of_studies.of(self.study_instance_uid)
        return None if found is None else Job.of(found)

    @strawberry.field(description="Asked for at the modality when it is selected.")
    async def series(self, info: Info) -> list[RemoteSeries]:
        """Search the series."""
        context = info.context
        context.prolong(context.runtime.settings.modality_seconds)
        found = await self.series_of_studies.of(self.study_instance_uid)
        context.count_nodes(len(found))
        return [RemoteSeries.of(record) for record in found]


@strawberry.type(description="What a modality answered to a query for studies, in its order.")
class RemoteStudies:
    """Studies at a modality."""

    nodes: list[RemoteStudy] = strawberry.field(description="The studies.")
    is_incomplete: bool = strawberry.field(
        description="More was there than `first`, the time was up (MODALITY_SECONDS), or the "
        "modality failed in the middle."
    )


@strawberry.type(description="A planned examination, as another worklist answers.")
class RemoteWorklistEntry:
    """A planned examination elsewhere."""

    accession_number: str | None = strawberry.field(description="AccessionNumber (0008,0050).")
    patient_id: str | None = strawberry.field(description="PatientID (0010,0020).")
    patient_name: str | None = strawberry.field(description="PatientName (0010,0010), as it came.")
    study_instance_uid: str | None = strawberry.field(description="StudyInstanceUID (0020,000D).")
    modality: str | None = strawberry.field(description="Modality (0008,0060) of the scanner.")
    scheduled_station_ae_title: str | None = strawberry.field(
        description="ScheduledStationAETitle (0040,0001)."
    )
    scheduled_procedure_step_start_date: Date | None = strawberry.field(
        description="ScheduledProcedureStepStartDate (0040,0002)."
    )
    scheduled_procedure_step_start_time: Time | None = strawberry.field(
        description="ScheduledProcedureStepStartTime (0040,0003)."
    )
    scheduled_procedure_step_description: str | None = strawberry.field(
        description="ScheduledProcedureStepDescription (0040,0007)."
    )
    tags: JSON | None = strawberry.field(
        description="Everything that was asked for and answered, by keyword."
    )

    @classmethod
    def of(cls, record: RemoteWorklistRecord) -> Self:
        """Show a planned examination."""
        return cls(
            accession_number=record.accession_number,
            patient_id=record.patient_id,
            patient_name=record.patient_name,
            study_instance_uid=record.study_instance_uid,
            modality=record.modality,
            scheduled_station_ae_title=record.station_ae_title,
            scheduled_procedure_step_start_date=_date(record.start_date),
            scheduled_procedure_step_start_time=None
            if record.start_time is None
            else Time(record.start_time),
            scheduled_procedure_step_description=record.description,
            tags=cast("JSON", dict(record.tags)),
        )


def _date(text: str | None) -> Date | None:
    return None if text is None else Date(text)


@strawberry.type(description="A patient, as a modality answers.")
class RemotePatient:
    """A patient at a modality."""

    patient_id: str = strawberry.field(description="PatientID (0010,0020).")
    patient_name: str | None = strawberry.field(
        description="PatientName (0010,0010), as it came: `Yamada^Tarou=山田^太郎`."
    )
    patient_birth_date: Date | None = strawberry.field(description="PatientBirthDate (0010,0030).")
    patient_sex: str | None = strawberry.field(description="PatientSex (0010,0040).")
    number_of_studies: int | None = strawberry.field(
        description="NumberOfPatientRelatedStudies (0020,1200); null when it does not say."
    )

    @classmethod
    def of(cls, record: RemotePatientRecord) -> Self:
        """Show a patient."""
        return cls(
            patient_id=record.patient_id,
            patient_name=record.patient_name,
            patient_birth_date=_date(record.patient_birth_date),
            patient_sex=record.patient_sex,
            number_of_studies=record.number_of_studies,
        )
