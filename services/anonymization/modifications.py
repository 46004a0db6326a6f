"""Modifying studies: starting, running and undoing the jobs."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from pydicom.dataset import Dataset
from pymongo.asynchronous.database import AsyncDatabase

from models import JobDocument, JobKind, StudyDocument
from models.forwarding import StudyOrigin
from models.stored import stored_name
from services.anonymization.modification import (
    ModificationOptions,
    ModificationRules,
    is_as_wanted,
    modification_date,
    modified,
)
from services.anonymization.pseudonyms import Pseudonyms, load_or_create_pseudonym_key
from services.anonymization.replacement import Replacements
from services.anonymization.results import RESULT, Results
from services.auth.roles import Principal
from services.auth.scope import ALL
from services.database import translated_database_faults
from services.deletion import Deletion, Level
from services.dicom.person_names import names_agree
from services.dicom.values import clean_identifier
from services.errors import FileRejected, InvalidInput, NotFound, OrthancNotFound
from services.index.stored_state import load_patient_names
from services.jobs.handler import NewJob, RunningJob
from services.jobs.service import Jobs
from services.labels.service import Labels
from services.orthanc.answers import StoredFile
from services.orthanc.identifiers import OrthancIds, orthanc_ids
from services.study_files import SourceChanged, SourceInstance, SourceStudy, StudyFiles

if TYPE_CHECKING:
    from datetime import datetime

_PATIENT_ID = stored_name(StudyDocument.patient_id)
_PATIENT_NAME = stored_name(StudyDocument.patient_name)
_STUDY_INSTANCE_UID = stored_name(StudyDocument.study_instance_uid)

_LABELS = "labels"
_IS_COMPLETE = "isComplete"
"""Keys of the checkpoint: the labels of the source, and whether all of the result is stored, so
that the source may go and the result must not."""


_SOURCE_CHANGED = (
    "The study has files that were not copied: they came or were replaced while it was modified, "
    "or can't be read. So it was not deleted. Retry the job."
)


class Modifications:
    """The start of modifications.

    Args:
        database: Where the index is.
        jobs: Runs them.
    """

    def __init__(self, database: AsyncDatabase[dict[str, Any]], jobs: Jobs) -> None:
        self._database = database
        self._jobs = jobs

    async def start(
        self,
        study: Mapping[str, Any],
        options: ModificationOptions,
        principal: Principal,
        *,
        correlation_id: str,
    ) -> JobDocument:
        """Start to modify a study.

        Args:
            study: As stored.
            options: What the caller wants.
            principal: The caller.
            correlation_id: Of the request.

        Raises:
            InvalidInput: An option makes no sense, or the PatientID is stored with another name.
            DatabaseUnavailable: MongoDB does not answer.
        """
        options.check()
        await self._require_one_person(study, options)
        new = NewJob(
            kind=JobKind.MODIFY,
            parameters=options.to_parameters(),
            orthanc_study_ids=[study["_id"]],
            study_instance_uids=[study[_STUDY_INSTANCE_UID]],
            lane=f"modify:{study['_id']}",
        )
        return await self._jobs.start(new, principal, correlation_id=correlation_id)

    async def _require_one_person(
        self, study: Mapping[str, Any], options: ModificationOptions
    ) -> None:
        """Require that a new PatientID and the name that goes with it are one person's."""
        new = clean_identifier(options.replace.get("PatientID", ""))
        if not new or new == study[_PATIENT_ID]:
            return
        name = options.replace.get("PatientName", study.get(_PATIENT_NAME))
        with translated_database_faults():
            names = await load_patient_names(self._database, new)
        if names and not any(names_agree(name, one) for one in names):
            message = (
                "This PatientID is stored with another patient name. Replace PatientName as well, "
                "by the name that is stored with it."
            )
            raise InvalidInput(message, argument="replace")


class ModifyHandler:
    """Makes copies of studies with other values, or gives studies other values.

    Args:
        files: Reads and stores files.
        replacements: Replaces files that keep their identifiers.
        database: Where the index is.
        deletion: Removes sources, and what a cancelled job has made.
        labels: Gives a copy the labels of its source.
    """

    kind: ClassVar[JobKind] = JobKind.MODIFY

    def __init__(
        self,
        files: StudyFiles,
        replacements: Replacements,
        database: AsyncDatabase[dict[str, Any]],
        deletion: Deletion,
        labels: Labels,
    ) -> None:
        self._files = files
        self._replacements = replacements
        self._database = database
        self._deletion = deletion
        self._results = Results(files, database, deletion)
        self._labels = labels

    async def run(self, job: RunningJob) -> None:
        """Modify a study.

        Raises:
            Error: Nothing more can be done now.
        """
        await self._replacements.finish(job)
        (study_id,) = job.orthanc_study_ids
        if job.checkpoint.get(_IS_COMPLETE) and not await self._files.held(study_id):
            plan = await self._deletion.find(Level.STUDY, study_id)
            await self._delete_source(job, plan.instance_ids)
            return
        # What came since an attempt broke off is copied before the source goes.
        study = await self._files.find(study_id, job.scope)
        options = ModificationOptions.from_parameters(job.parameters)
        rules = await self._rules(job, study, options)
        is_in_place = options.delete_source and _keeps_patient(study, options)
        ids = _ids_of(study, study.instances[0], rules)
        result = study.study_id if is_in_place else ids.study
        await self._results.claim(job, result, {_LABELS: list(study.labels)})
        job.progress(total=len(study.instances))
        copied: Mapping[str, str] = {}
        if is_in_place:
            await self._replace(job, study, rules)
        else:
            # A correction stays what it was; a copy is one of ours.
            is_copy = not options.delete_source
            origin = StudyOrigin.MODIFIED if is_copy else await self._files.origin(study_id)
            await self._files.record_origin(result, origin)
            copied = await self._copy(job, study, rules)
        if not job.completed:
            return
        job.add_results(result)
        if labels := job.checkpoint[_LABELS]:
            await self._labels.add(result, labels, ALL)
        if options.delete_source and not is_in_place and not job.failed:
            await self._require_unchanged(study, copied)
            await job.save({**job.checkpoint, _IS_COMPLETE: True})
            await self._delete_source(job, copied)
        else:
            await self._results.keep(job)

    async def discard(self, job: RunningJob) -> None:
        """Remove what was made beside the source, unless the source is being removed or is gone."""
        await self._replacements.finish(job)
        (study_id,) = job.orthanc_study_ids
        is_copy = job.checkpoint.get(RESULT) not in {None, study_id}
        if not is_copy or job.checkpoint.get(_IS_COMPLETE):
            return
        # Without its source a copy is all that there is, as after a restore in the middle.
        held = await self._files.held(study_id)
        with suppress(NotFound):
            study = await self._files.find(study_id, ALL)
            options = ModificationOptions.from_parameters(job.parameters)
            rules = await self._rules(job, study, options)
            sources = [one for one in study.instances if one.instance_id in held]
            made = {_ids_of(study, one, rules).instance for one in sources}
            if await self._results.remove(job, made):
                await job.save({})

    async def _rules(
        self, job: RunningJob, study: SourceStudy, options: ModificationOptions
    ) -> ModificationRules:
        if options.delete_source:
            return ModificationRules(options=options, modified_at=job.created_at)
        pseudonyms = Pseudonyms(await load_or_create_pseudonym_key(self._database))
        own_uids = {study.study_instance_uid}
        for instance in study.instances:
            own_uids |= {instance.series_instance_uid, instance.sop_instance_uid}
        return ModificationRules(
            options=options,
            modified_at=job.created_at,
            pseudonyms=pseudonyms.for_output({"modify": options.to_parameters()}),
            own_uids=frozenset(own_uids),
        )

    async def _copy(
        self, job: RunningJob, study: SourceStudy, rules: ModificationRules
    ) -> Mapping[str, str]:
        """Store the copies; one that is there counts when it is the same file but for its date.

        Returns:
            The revisions of the files that were copied.
        """
        copies = {_ids_of(study, one, rules).instance: one for one in study.instances}
        there: set[SourceInstance] = set()
        dates: dict[SourceInstance, datetime] = {}

        async def read_date(stored: tuple[SourceInstance, StoredFile]) -> None:
            _, file = stored
            source = copies[file.instance_id]
            with suppress(FileRejected, OrthancNotFound):
                there.add(source)
                date = modification_date(await self._files.header(file))
                if date is not None:
                    dates[source] = date

        await self._files.for_each(
            [replace(one, instance_id=copy) for copy, one in copies.items()], read_date
        )
        held = await self._files.held(study.study_id)
        # There is nothing to compare them with any more.
        alone = {one for one in there if one.instance_id not in held}
        job.advance(len(alone))

        def change(instance: SourceInstance, header: Dataset) -> Dataset:
            date = dates.get(instance, rules.modified_at)
            return modified(header, replace(rules, modified_at=date))

        sources = [one for one in study.instances if one not in alone]
        return await self._files.copy(job, sources, change)

    async def _replace(self, job: RunningJob, study: SourceStudy, rules: ModificationRules) -> None:
        async def replace_one(stored: tuple[SourceInstance, StoredFile]) -> None:
            instance, file = stored
            with job.counted(instance.sop_instance_uid):
                await self._replace_one(job, file, rules)

        await self._files.for_each(study.instances, replace_one)

    async def _replace_one(
        self, job: RunningJob, stored: StoredFile, rules: ModificationRules
    ) -> None:
        is_changed = True

        def change(source: Dataset) -> Dataset:
            nonlocal is_changed
            is_changed = not is_as_wanted(source, rules.options)
            return modified(source, rules) if is_changed else source

        file: BinaryIO
        async with self._files.rewritten(stored, change) as file:
            if is_changed:
                await self._replacements.replace(stored, file, job)

    async def _require_unchanged(self, study: SourceStudy, copied: Mapping[str, str]) -> None:
        """Require that Orthanc has nothing of the study but the files that were copied."""
        if await self._files.held(study.study_id) != copied:
            raise SourceChanged(_SOURCE_CHANGED)

    async def _delete_source(self, job: RunningJob, instance_ids: Collection[str]) -> None:
        """Delete the files that were copied; one that comes at this moment stays."""
        await self._deletion.delete_instances(instance_ids)
        count = job.total or 0
        job.progress(completed=count, total=count)


def _keeps_patient(study: SourceStudy, options: ModificationOptions) -> bool:
    new = options.replace.get("PatientID")
    return new is None or clean_identifier(new) == study.patient_id


def _ids_of(study: SourceStudy, instance: SourceInstance, rules: ModificationRules) -> OrthancIds:
    """Return Orthanc's identifiers of a modified instance."""
    patient_id = rules.options.replace.get("PatientID", study.patient_id)
    uids = (study.study_instance_uid, instance.series_instance_uid, instance.sop_instance_uid)
    if rules.pseudonyms is not None:
        uids = tuple(map(rules.pseudonyms.uid, uids))  # type: ignore[assignment]  # still three
    return orthanc_ids(patient_id.rstrip(" "), *uids)
