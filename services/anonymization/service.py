"""Anonymising studies: starting, running and undoing the jobs, and finding sources."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ClassVar

from pymongo import ReturnDocument
from pymongo.asynchronous.database import AsyncDatabase

from models import AnonymizationDocument, JobDocument, JobKind, StudyDocument
from models.forwarding import StudyOrigin
from models.stored import stored_name
from services.anonymization.burned_in import INSPECTED_TAGS, BurnedInAnnotation, fault_of
from services.anonymization.content import METHOD, AnonymizationRules, anonymized
from services.anonymization.options import AnonymizationOptions
from services.anonymization.pseudonyms import Pseudonyms, load_or_create_pseudonym_key
from services.anonymization.results import RESULT, Results
from services.auth.roles import Principal
from services.database import translated_database_faults
from services.deletion import Deletion
from services.dicom.values import clean_identifier
from services.errors import InvalidInput
from services.index.record import to_stored_precision
from services.jobs.handler import NewJob, RunningJob
from services.jobs.service import Jobs
from services.labels.service import Labels
from services.orthanc.identifiers import OrthancIds, orthanc_ids
from services.study_files import SourceInstance, SourceStudy, StudyFiles

_PATIENT_ID = stored_name(StudyDocument.patient_id)
_STUDY_INSTANCE_UID = stored_name(StudyDocument.study_instance_uid)
_SOURCE_STUDY_ID = stored_name(AnonymizationDocument.source_study_id)
_CREATED_AT = stored_name(AnonymizationDocument.created_at)

_SOURCE_STATE = stored_name(AnonymizationDocument.source_state)


class Anonymizations:
    """Which studies were anonymised, and the start of new ones.

    Args:
        database: Where the index is.
        jobs: Runs them.
    """

    def __init__(self, database: AsyncDatabase[dict[str, Any]], jobs: Jobs) -> None:
        self._studies = database[StudyDocument.Settings.name]
        self._links = database[AnonymizationDocument.Settings.name]
        self._jobs = jobs

    async def start(
        self,
        study: Mapping[str, Any],
        options: AnonymizationOptions,
        principal: Principal,
        *,
        correlation_id: str,
    ) -> JobDocument:
        """Start to make an anonymised copy of a study.

        Args:
            study: As stored; the caller sees it.
            options: What the caller wants.
            principal: The caller.
            correlation_id: Of the request.

        Raises:
            InvalidInput: An option makes no sense, or the PatientID is a real patient's.
            DatabaseUnavailable: MongoDB does not answer.
        """
        options.check()
        if options.patient_id is not None:
            if not principal.scope.is_all:
                # The answer would tell whether somebody outside of the scope has it.
                message = "Your credential is limited to some studies: leave patientID out."
                raise InvalidInput(message, argument="input.patientID")
            await self._require_pseudonym(options.patient_id)
        new = NewJob(
            kind=JobKind.ANONYMIZE,
            parameters=options.to_parameters(),
            orthanc_study_ids=[study["_id"]],
            study_instance_uids=[study[_STUDY_INSTANCE_UID]],
            # Two may make the same copy: one that is cancelled must not remove the other's.
            lane=f"anonymize:{study['_id']}",
        )
        return await self._jobs.start(new, principal, correlation_id=correlation_id)

    async def sources_of(self, study_ids: Sequence[str]) -> list[str | None]:
        """Return Orthanc's identifiers of the studies that others were made of; None: of none.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        with translated_database_faults():
            found = self._links.find({"_id": {"$in": list(study_ids)}})
            sources = {link["_id"]: link[_SOURCE_STUDY_ID] async for link in found}
        return [sources.get(study_id) for study_id in study_ids]

    async def _require_pseudonym(self, patient_id: str) -> None:
        """Require that nobody real has a PatientID: two people must not become one."""
        with translated_database_faults():
            found = self._studies.find({_PATIENT_ID: clean_identifier(patient_id)}, {"_id": 1})
            study_ids = [study["_id"] async for study in found]
        if None in await self.sources_of(study_ids):
            message = (
                "A patient of this archive has this PatientID. Give one that stands for nobody, or "
                "none."
            )
            raise InvalidInput(message, argument="input.patientID")


class AnonymizeHandler:
    """Makes anonymised copies of studies.

    Names and UIDs are derived (`services.anonymization.pseudonyms`), so an attempt that is repeated
    makes the same files again, and passes by those that are stored already.

    Args:
        files: Reads and stores files.
        database: Where the links to the sources are.
        deletion: Removes what a cancelled job has made.
        labels: Lets starters with a limited scope see the result.
    """

    kind: ClassVar[JobKind] = JobKind.ANONYMIZE

    def __init__(
        self,
        files: StudyFiles,
        database: AsyncDatabase[dict[str, Any]],
        deletion: Deletion,
        labels: Labels,
    ) -> None:
        self._files = files
        self._database = database
        self._links = database[AnonymizationDocument.Settings.name]
        self._results = Results(files, database, deletion)
        self._labels = labels

    async def run(self, job: RunningJob) -> None:
        """Make the copy.

        Raises:
            BurnedInAnnotation: Images may show the patient's name; nothing was stored.
            Error: Nothing more can be done now.
        """
        (study_id,) = job.orthanc_study_ids
        study = await self._files.find(study_id, job.scope)
        job.progress(total=len(study.instances))
        options = AnonymizationOptions.from_parameters(job.parameters)
        clean = await self._clean_instances(job, study, options)
        rules = await self._rules(study, options)
        result = _ids_of(study, study.instances[0], rules).study
        await self._results.claim(job, result, {})
        is_current = await self._link(result, study)
        if is_current:
            clean = await self._missing(job, study, clean, rules)
        await self._files.record_origin(result, StudyOrigin.ANONYMIZED)
        await self._files.copy(job, clean, lambda _, header: anonymized(header, rules))
        if job.completed:
            job.add_results(result)
            await self._labels.adopt([result], job.scope, created_since=job.created_at)
            await self._results.keep(job)
        if not job.failed:
            await self._set_state(result, study)

    async def discard(self, job: RunningJob) -> None:
        """Remove what was made of the copy."""
        # Its UIDs are derived with a secret key: no file of anybody else is in it.
        if await self._results.remove(job):
            with translated_database_faults():
                await self._links.delete_one({"_id": job.checkpoint[RESULT]})
            await job.save({})

    async def _clean_instances(
        self, job: RunningJob, study: SourceStudy, options: AnonymizationOptions
    ) -> list[SourceInstance]:
        """Return the instances that may be copied; the others are counted as failed."""
        faults = await self._files.faults(study.instances, INSPECTED_TAGS, fault_of)
        if options.confirm_burned_in:
            faults = {
                one: fault
                for one, fault in faults.items()
                if not isinstance(fault, BurnedInAnnotation)
            }
        for instance, fault in faults.items():
            job.fail(instance.sop_instance_uid, fault)
        burned_in = next((f for f in faults.values() if isinstance(f, BurnedInAnnotation)), None)
        if burned_in is not None:
            raise BurnedInAnnotation(
                "The pixels of some images show text about the patient, or may do so: see "
                "`failures`. Nothing was stored. Look at them; where there is none, repeat with "
                "confirmBurnedIn: true."
            )
        return [one for one in study.instances if one not in faults]

    async def _rules(self, study: SourceStudy, options: AnonymizationOptions) -> AnonymizationRules:
        pseudonyms = Pseudonyms(await load_or_create_pseudonym_key(self._database))
        patient_id = options.patient_id or pseudonyms.patient_id(study.patient_id)
        patient_name = options.patient_name or patient_id
        named = replace(
            options, patient_id=patient_id, patient_name=patient_name, confirm_burned_in=False
        )
        return AnonymizationRules(
            pseudonyms=pseudonyms.for_output({"method": METHOD, **named.to_parameters()}),
            patient_id=patient_id,
            patient_name=patient_name,
            keep=frozenset(options.keep),
            replace=options.replace,
        )

    async def _missing(
        self,
        job: RunningJob,
        study: SourceStudy,
        instances: Sequence[SourceInstance],
        rules: AnonymizationRules,
    ) -> list[SourceInstance]:
        """Return the instances whose copies are not there yet; the others count as completed."""
        copies = {one: _ids_of(study, one, rules).instance for one in instances}
        there = await self._files.present(
            [replace(one, instance_id=copy) for one, copy in copies.items()]
        )
        missing = [one for one, copy in copies.items() if copy not in there]
        job.progress(completed=len(instances) - len(missing))
        return missing

    async def _link(self, result: str, study: SourceStudy) -> bool:
        """Link a result to its source.

        Returns:
            Whether the copies that are there were made of the files that the source has now.
        """
        state = _state_of(study)
        fields: dict[str, Any] = {_SOURCE_STUDY_ID: study.study_id}
        if not await self._files.is_indexed(result):
            fields[_SOURCE_STATE] = state
        now = to_stored_precision(datetime.now(UTC))
        with translated_database_faults():
            link = await self._links.find_one_and_update(
                {"_id": result},
                {"$set": fields, "$setOnInsert": {_CREATED_AT: now}},
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
        return link is not None and link.get(_SOURCE_STATE) == state

    async def _set_state(self, result: str, study: SourceStudy) -> None:
        with translated_database_faults():
            await self._links.update_one(
                {"_id": result}, {"$set": {_SOURCE_STATE: _state_of(study)}}
            )


def _state_of(study: SourceStudy) -> str:
    """Return a digest of the files of a study."""
    files = sorted(f"{one.instance_id} {one.revision}" for one in study.instances)
    return hashlib.sha256("\n".join(files).encode()).hexdigest()


def _ids_of(study: SourceStudy, instance: SourceInstance, rules: AnonymizationRules) -> OrthancIds:
    """Return Orthanc's identifiers of the copy of an instance."""
    uid = rules.pseudonyms.uid
    return orthanc_ids(
        rules.patient_id.rstrip(" "),
        uid(study.study_instance_uid),
        uid(instance.series_instance_uid),
        uid(instance.sop_instance_uid),
    )
