"""Reads the files of a study, writes them with another header, and stores them."""

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Container,
    Mapping,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

from pydicom.dataset import Dataset
from pymongo.asynchronous.database import AsyncDatabase

from models import InstanceDocument, SeriesDocument, StudyCopyDocument, StudyDocument
from models.forwarding import StudyOrigin
from models.stored import stored_name
from services.auth.scope import Scope
from services.database import translated_database_faults
from services.dicom.checking import check_file
from services.dicom.deflation import inflated_copy
from services.dicom.elements import Elements, kept_elements
from services.dicom.layout import WalkLimits
from services.dicom.new_header import read_header, rewritten
from services.dicom.parser import walk
from services.errors import Error, NotFound, OrthancNotFound
from services.ingest.batch import map_ordered
from services.ingest.results import StoreResult
from services.ingest.service import Ingest, SentFile
from services.jobs.handler import JobError, RunningJob, may_pass
from services.orthanc.answers import StoredFile
from services.orthanc.client import Orthanc

_ORTHANC_STUDY_ID = stored_name(InstanceDocument.orthanc_study_id)
_ORTHANC_SERIES_ID = stored_name(InstanceDocument.orthanc_series_id)
_SOP_INSTANCE_UID = stored_name(InstanceDocument.sop_instance_uid)
_SERIES_INSTANCE_UID = stored_name(SeriesDocument.series_instance_uid)
_STUDY_INSTANCE_UID = stored_name(StudyDocument.study_instance_uid)
_PATIENT_ID = stored_name(StudyDocument.patient_id)
_ORTHANC_PATIENT_ID = stored_name(StudyDocument.orthanc_patient_id)

_AT_ONCE = 8
"""Files that are rewritten at once: as many as threads read files."""
_LOOKED_UP = 200
"""Instances that Orthanc is asked about in one call."""


NO_STUDY = "There is no such study any more."


class SourceChanged(JobError):
    """Files came into a study, or were replaced, while a job read it."""

    code = "SOURCE_CHANGED"
    default_message = "A file of the study was replaced while it was read. Retry the job."
    may_pass = True


@dataclass(frozen=True, slots=True)
class SourceStudy:
    """A study as it is indexed.

    Attributes:
        study_id: Orthanc's identifier.
        patient_id: PatientID without padding.
        instances: What it holds, by Orthanc's identifier.
    """

    study_id: str
    study_instance_uid: str
    patient_id: str
    orthanc_patient_id: str
    labels: Sequence[str]
    instances: Sequence["SourceInstance"]


@dataclass(frozen=True, slots=True)
class SourceInstance:
    """An instance of a study; `revision` is that of its file, as it is indexed."""

    instance_id: str
    series_instance_uid: str
    sop_instance_uid: str
    revision: str


class StudyFiles:
    """The files of studies, read and written for jobs.

    Args:
        orthanc: Where the files are.
        ingest: Stores what is made of them, with the same checks as an upload.
        database: Where the index is.
        limits: The largest structure that is read.
    """

    def __init__(
        self,
        orthanc: Orthanc,
        ingest: Ingest,
        database: AsyncDatabase[dict[str, Any]],
        limits: WalkLimits,
    ) -> None:
        self._orthanc = orthanc
        self._ingest = ingest
        self._studies = database[StudyDocument.Settings.name]
        self._series = database[SeriesDocument.Settings.name]
        self._instances = database[InstanceDocument.Settings.name]
        self._copies = database[StudyCopyDocument.Settings.name]
        self._limits = limits

    async def find(self, study_id: str, scope: Scope) -> SourceStudy:
        """Read what is indexed of a study.

        Args:
            study_id: Orthanc's identifier.
            scope: Of who started the job: a label may have been taken away since.

        Raises:
            NotFound: It is not there, or not in the scope.
            DatabaseUnavailable: MongoDB does not answer.
        """
        within = {_ORTHANC_STUDY_ID: study_id}
        with translated_database_faults():
            study = await self._studies.find_one({"_id": study_id})
            uids = {
                series["_id"]: series[_SERIES_INSTANCE_UID]
                async for series in self._series.find(within, {_SERIES_INSTANCE_UID: 1})
            }
            fields = {_SOP_INSTANCE_UID: 1, _ORTHANC_SERIES_ID: 1, "revision": 1}
            found = await self._instances.find(within, fields, sort=[("_id", 1)]).to_list()
        if study is None or not found or not scope.covers(study_id, study.get("labels", ())):
            raise NotFound(NO_STUDY)
        return SourceStudy(
            study_id=study_id,
            study_instance_uid=study[_STUDY_INSTANCE_UID],
            patient_id=study[_PATIENT_ID],
            orthanc_patient_id=study[_ORTHANC_PATIENT_ID],
            labels=study.get("labels", ()),
            instances=[
                SourceInstance(
                    one["_id"],
                    uids.get(one[_ORTHANC_SERIES_ID], ""),
                    one[_SOP_INSTANCE_UID],
                    one["revision"],
                )
                for one in found
            ],
        )

    async def held(self, study_id: str) -> Mapping[str, str]:
        """Return the revisions of what Orthanc holds of a study, indexed or not, by identifier.

        Raises:
            OrthancUnavailable: Orthanc does not answer.
        """
        try:
            series = await self._orthanc.client.study_series(study_id)
        except OrthancNotFound:
            return {}
        ids = [instance_id for one in series for instance_id in one.instance_ids]
        return {one.instance_id: one.revision async for one in self._looked_up(ids)}

    async def is_indexed(self, study_id: str) -> bool:
        """Return whether there is a study."""
        with translated_database_faults():
            return await self._studies.find_one({"_id": study_id}, {"_id": 1}) is not None

    async def present(self, instances: Sequence[SourceInstance]) -> set[str]:
        """Return Orthanc's identifiers of those instances that it has, and that are indexed so."""
        with translated_database_faults():
            ids = [one.instance_id for one in instances]
            found = self._instances.find({"_id": {"$in": ids}}, {"revision": 1})
            indexed = {one["_id"]: one["revision"] async for one in found}
        return {
            file.instance_id
            async for _, file in self._stored(
                [one for one in instances if one.instance_id in indexed]
            )
            if file.revision == indexed[file.instance_id]
        }

    async def origin(self, study_id: str) -> StudyOrigin:
        """Return how a study came into the archive."""
        with translated_database_faults():
            copy = await self._copies.find_one({"_id": study_id})
        return StudyOrigin.RECEIVED if copy is None else StudyOrigin(copy["origin"])

    async def record_origin(self, study_id: str, origin: StudyOrigin) -> None:
        """Note how a study comes into the archive, before its first file is stored."""
        if origin is StudyOrigin.RECEIVED:
            return
        with translated_database_faults():
            await self._copies.update_one(
                {"_id": study_id}, {"$set": {"origin": origin.value}}, upsert=True
            )

    async def faults(
        self,
        instances: Sequence[SourceInstance],
        tags: Container[int],
        fault_of: Callable[[Elements], Error | None],
    ) -> dict[SourceInstance, Error]:
        """Find the files that have a fault, or that can't be read.

        Args:
            instances: Where to look.
            tags: Of the elements that are looked at.
            fault_of: Returns what is wrong with a file.

        Raises:
            OrthancUnavailable: Orthanc does not answer.
        """
        faults: dict[SourceInstance, Error] = {}

        def look(file: BinaryIO, file_size: int | None) -> Error | None:
            layout = walk(file, self._limits, keep=tags, file_size=file_size)
            if not layout.is_deflated:
                return fault_of(kept_elements(file, layout))
            with inflated_copy(file, layout.dataset_offset, self._limits) as inflated:
                return fault_of(kept_elements(inflated, layout))

        async def inspect(stored: tuple[SourceInstance, StoredFile]) -> None:
            instance, file = stored
            try:
                fault = await self._orthanc.files.beginnings.read(file, look)
            except Error as exc:
                if may_pass(exc):
                    raise
                fault = exc
            if fault is not None:
                faults[instance] = fault

        await self.for_each(instances, inspect)
        return faults

    async def header(self, stored: StoredFile) -> Dataset:
        """Read the elements before the pixel data of a stored file; its values are not read yet.

        Raises:
            FileRejected: It can't be read within the limits.
            OrthancError: Orthanc does not have it or does not answer.
        """

        def read(file: BinaryIO, file_size: int | None) -> Dataset:
            layout = walk(file, self._limits, file_size=file_size)
            if not layout.is_deflated:
                return read_header(file, layout)
            with inflated_copy(file, layout.dataset_offset, self._limits) as inflated:
                return read_header(inflated, layout)

        return await self._orthanc.files.beginnings.read(stored, read)

    async def for_each(
        self,
        instances: Sequence[SourceInstance],
        work: Callable[[tuple[SourceInstance, StoredFile]], Awaitable[None]],
        *,
        at_once: int = _AT_ONCE,
    ) -> None:
        """Work on stored files, eight at a time unless told otherwise; the first error ends it.

        Instances that are gone are passed by.
        """
        stored = self._stored(instances)
        async with aclosing(map_ordered(stored, work, concurrency=at_once)) as done:
            async for _ in done:
                pass

    async def _stored(
        self, instances: Sequence[SourceInstance]
    ) -> AsyncGenerator[tuple[SourceInstance, StoredFile], None]:
        by_id = {one.instance_id: one for one in instances}
        async for file in self._looked_up(list(by_id)):
            yield by_id[file.instance_id], file

    async def _looked_up(self, instance_ids: Sequence[str]) -> AsyncGenerator[StoredFile, None]:
        """Look files up in Orthanc, in their order; those that are gone are passed by."""
        for begin in range(0, len(instance_ids), _LOOKED_UP):
            part = instance_ids[begin : begin + _LOOKED_UP]
            found = await self._orthanc.client.stored_files(part)
            by_id = {one.instance_id: one for one in found}
            for instance_id in part:
                if instance_id in by_id:
                    yield by_id[instance_id]

    async def _require_unchanged(self, instance: SourceInstance) -> None:
        """Require that Orthanc has a file as it is indexed: then it was so whenever it was read.

        What was found out about the file before, such as text in its pixels, is true of its copy.
        """
        found = await self._orthanc.client.stored_files([instance.instance_id])
        if not found:
            raise OrthancNotFound
        if found[0].revision != instance.revision:
            raise SourceChanged

    @asynccontextmanager
    async def rewritten(
        self, stored: StoredFile, change: Callable[[Dataset], Dataset]
    ) -> AsyncIterator[BinaryIO]:
        """Open a stored file with another header, as a temporary file.

        Raises:
            FileRejected: The file can't be read.
            OrthancError: Orthanc does not have it or does not answer.
        """
        made: list[BinaryIO] = []

        def rewrite(file: BinaryIO, _size: int | None) -> None:
            made.append(rewritten(file, change, self._limits))
            # Nothing is given up for a file that could not be stored.
            check_file(made[0], limits=self._limits, is_stored=True)
            made[0].seek(0)

        try:
            await self._orthanc.files.beginnings.read(stored, rewrite, pixel_data_bytes=None)
            yield made[0]
        finally:
            # A caller that is cancelled has waited for the thread, which may have made the file.
            for file in made:
                file.close()

    async def store(self, file: BinaryIO, job: RunningJob | None) -> StoreResult:
        """Store a file that was made; it is closed afterwards.

        Args:
            file: Seekable, at its beginning.
            job: That made it; None: one that is not known any more.

        Raises:
            Error: It is not stored, and why.
        """
        (result,) = await self._ingest.store(
            [SentFile(f"job {job.id if job else None}", lambda: file)]
        )
        if result.error is not None:
            raise result.error
        return result

    async def copy(
        self,
        job: RunningJob,
        instances: Sequence[SourceInstance],
        change: Callable[[SourceInstance, Dataset], Dataset],
    ) -> Mapping[str, str]:
        """Store a changed copy of each instance; the fault of one does not end the others.

        A copy that is there with the same bytes counts as stored, and one with other bytes stays
        and fails.

        Args:
            job: Counts them.
            instances: The sources.
            change: Returns the header of the copy of a source by that of the source.

        Returns:
            The revisions of the sources that were copied, by Orthanc's identifiers.

        Raises:
            Error: Nothing more can be done now.
        """
        copied: dict[str, str] = {}
        handled: set[SourceInstance] = set()

        async def copy_one(stored: tuple[SourceInstance, StoredFile]) -> None:
            instance, file = stored
            handled.add(instance)
            with job.counted(instance.sop_instance_uid):
                try:
                    async with self.rewritten(file, partial(change, instance)) as changed:
                        await self._require_unchanged(instance)
                        made = await self.store(changed, job)
                except OrthancNotFound as exc:
                    raise NotFound("It was deleted meanwhile.") from exc
                copied[file.instance_id] = instance.revision
                if made.study_id is not None:
                    job.add_results(made.study_id)

        await self.for_each(instances, copy_one)
        for instance in instances:
            if instance not in handled:
                job.fail(instance.sop_instance_uid, NotFound("Orthanc does not have this file."))
        return copied
