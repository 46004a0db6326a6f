"""Exporting studies: the jobs that prepare exports, and the archives that are downloaded."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar

from models import JobDocument, JobKind, JobState, StudyDocument
from models.names import contract_name
from models.stored import stored_name
from services.auth.roles import Principal
from services.dicom.display import NATIVE_SYNTAXES
from services.dicom.layout import EXPLICIT_VR_LITTLE_ENDIAN
from services.errors import InvalidInput, NotFound, OrthancNotFound, PacsDisabled
from services.exports.contents import ExportContents, ExportedFile, ExportOutdated
from services.exports.decoded import DecodedFiles
from services.exports.folder import ExportFolder, FolderNotWritable
from services.exports.media import Media
from services.exports.urls import ExportReference, ExportUrlSigner, export_revision
from services.exports.zipping import ZipMember, zipped
from services.jobs.handler import NewJob, RunningJob
from services.jobs.service import Jobs
from services.jobs.store import JobStore
from services.orthanc.answers import StoredFile
from services.orthanc.client import OrthancClient
from services.study_files import SourceInstance, SourceStudy, StudyFiles
from services.tasks import finish_in_thread

_STUDY_INSTANCE_UID = stored_name(StudyDocument.study_instance_uid)

_STUDIES_MAX = 100
"""Studies of one export."""

_DIRECTORY = "DICOMDIR"
_FORMAT = "format"
_IS_DECODED = "isDecoded"
TO_FOLDER = "toFolder"
"""Keys of the parameters."""


class ExportFormat(StrEnum):
    """How an export is arranged."""

    ZIP = "ZIP"
    """Files in folders by study and series."""
    DICOMDIR = "DICOMDIR"
    """The same with a DICOMDIR, as on media (PS3.10)."""


class Exports:
    """The start of exports, and what they are downloaded as.

    Args:
        jobs: Runs them.
        store: The jobs in MongoDB.
        contents: What exports hold.
        urls: Mints and verifies their signed paths.
        orthanc: Where the files are; None while PACS integration is off.
        decoded: Decodes compressed files; None likewise.
        has_folder: Whether there is an EXPORT_FOLDER.
    """

    def __init__(
        self,
        jobs: Jobs,
        store: JobStore,
        contents: ExportContents,
        urls: ExportUrlSigner,
        *,
        orthanc: OrthancClient | None,
        decoded: DecodedFiles | None,
        has_folder: bool,
    ) -> None:
        self._decoded = decoded
        self._has_folder = has_folder
        self.urls = urls
        self._jobs = jobs
        self._store = store
        self._contents = contents
        self._orthanc = orthanc

    async def start(
        self,
        studies: Sequence[Mapping[str, Any]],
        arrangement: ExportFormat,
        principal: Principal,
        *,
        transfer_syntax_uid: str | None = None,
        to_folder: bool = False,
        correlation_id: str,
    ) -> JobDocument:
        """Start to prepare an export.

        Args:
            studies: As stored, 1 to 100; the caller sees them.
            arrangement: How it is arranged.
            principal: The caller.
            transfer_syntax_uid: Of compressed files in the export; None: as they are stored.
            to_folder: Write it into EXPORT_FOLDER.
            correlation_id: Of the request.

        Raises:
            InvalidInput: There are no or too many studies, there is no folder, or this server does
                not write that transfer syntax.
            DatabaseUnavailable: MongoDB does not answer.
        """
        if not 0 < len(studies) <= _STUDIES_MAX:
            raise InvalidInput(f"ids: 1 to {_STUDIES_MAX} studies.", argument="ids")
        if transfer_syntax_uid not in {None, EXPLICIT_VR_LITTLE_ENDIAN}:
            message = f"transferSyntaxUID: {EXPLICIT_VR_LITTLE_ENDIAN} (uncompressed), or nothing."
            raise InvalidInput(message, argument=contract_name("transfer_syntax_uid"))
        if to_folder and not self._has_folder:
            raise InvalidInput("This server has no EXPORT_FOLDER.")
        new = NewJob(
            kind=JobKind.EXPORT,
            parameters={
                _FORMAT: arrangement.value,
                _IS_DECODED: transfer_syntax_uid is not None,
                TO_FOLDER: to_folder,
            },
            orthanc_study_ids=[study["_id"] for study in studies],
            study_instance_uids=[study[_STUDY_INSTANCE_UID] for study in studies],
        )
        return await self._jobs.start(new, principal, correlation_id=correlation_id)

    async def find(self, reference: ExportReference) -> JobDocument:
        """Find the finished export of a verified URL.

        Raises:
            NotFound: It was dropped, or is being made again.
            DatabaseUnavailable: MongoDB does not answer.
        """
        job = await self._store.find(reference.job_id)
        is_finished = job is not None and is_downloadable(job)
        if job is None or not is_finished or job.finished_at is None:
            raise NotFound("There is no such export any more. Start a new one.")
        if export_revision(job.finished_at) != reference.revision:
            raise NotFound("This export was made again. Take its new URL.")
        return job

    def archive(self, job: JobDocument) -> AsyncGenerator[bytes, None]:
        """Stream an export as ZIP archive; what changed since ends it with an error.

        Raises:
            ExportOutdated: A file was replaced or deleted.
            NotFound: What it held was dropped, or a part of that.
            PacsDisabled: PACS integration is off.
            OrthancError: A file can't be read.
        """
        if self._orthanc is None:
            raise PacsDisabled
        decoded = self._decoded if job.parameters.get(_IS_DECODED) else None
        opened = self._orthanc.download
        source = _Source(self._contents, self._orthanc, opened, decoded)
        return zipped(_members(job.id, source, number_of_files=job.completed))


@dataclass(frozen=True, slots=True)
class _Source:
    """Where the members of an export come from.

    Attributes:
        contents: Knows what it holds.
        orthanc: Knows whether that is still stored.
        opened: Opens a stored file.
        decoded: Opens compressed files; None: as they are stored.
    """

    contents: ExportContents
    orthanc: OrthancClient
    opened: Callable[[str], AbstractAsyncContextManager[AsyncIterator[bytes]]]
    decoded: DecodedFiles | None

    async def open(self, file: ExportedFile) -> ZipMember:
        """Return the member of a file."""
        compressed = None
        if self.decoded is not None:
            compressed = await self.decoded.find(file.instance_id, file.revision)
        if self.decoded is None or compressed is None:
            return ZipMember(file.name, _stored(self.opened(file.instance_id)))
        return ZipMember(file.name, _stored(self.decoded.opened(compressed)))

    async def require_unchanged(self, files: Sequence[ExportedFile]) -> None:
        """Require that Orthanc has these files as they were when the export was prepared.

        A file that is replaced gets a name in Orthanc that it never had. So whatever was read
        before this call, since the export was prepared, was read of the same files.

        Raises:
            ExportOutdated: One was replaced or deleted.
        """
        stored = await self.orthanc.stored_files([file.instance_id for file in files])
        revisions = {one.instance_id: one.revision for one in stored}
        if any(revisions.get(file.instance_id) != file.revision for file in files):
            raise ExportOutdated


async def _members(
    job_id: str, source: _Source, *, number_of_files: int | None = None
) -> AsyncIterator[ZipMember]:
    """Iterate over what an export holds.

    Args:
        job_id: Of the export.
        source: Where that comes from.
        number_of_files: How many there must be: MongoDB drops its documents one by one, and half
            of an export must not look complete. None: as many as there are.

    Raises:
        ExportOutdated: Not all that was yielded is what the DICOMDIR says.
        NotFound: There are fewer.
    """
    found = 0
    pieces = [piece async for piece in source.contents.dicomdir(job_id)]
    async for files in source.contents.files(job_id):
        await source.require_unchanged(files)
        if pieces and not found:
            yield ZipMember(_DIRECTORY, _from_memory(pieces))
        for file in files:
            yield await source.open(file)
        await source.require_unchanged(files)
        found += len(files)
    if number_of_files is not None and found < number_of_files:
        raise NotFound("This export is not kept any more. Start a new one.")


@asynccontextmanager
async def _stored(
    opened: AbstractAsyncContextManager[AsyncIterator[bytes]],
) -> AsyncIterator[AsyncIterator[bytes]]:
    try:
        async with opened as chunks:
            yield chunks
    except OrthancNotFound as exc:
        raise ExportOutdated from exc


def is_downloadable(job: JobDocument) -> bool:
    """Return whether a job has made an export that can be downloaded."""
    return job.kind is JobKind.EXPORT and job.state in {JobState.SUCCEEDED, JobState.PARTIAL}


@asynccontextmanager
async def _from_memory(pieces: Sequence[bytes]) -> AsyncIterator[AsyncIterator[bytes]]:
    async def chunks() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    yield chunks()


class ExportHandler:
    """Prepares exports: finds their files, names them, and makes their DICOMDIR.

    The files stay in Orthanc until the export is downloaded. Names in an export hold no patient
    data: `ST000000/SE000001/IM000002`, numbered in the order of the study.

    Args:
        files: Reads files.
        contents: Keeps what exports hold.
        decoded: Decodes compressed files.
        orthanc: Where the files are.
        folder: EXPORT_FOLDER; None where there is none.
        retention: How long an export can be downloaded.
    """

    kind: ClassVar[JobKind] = JobKind.EXPORT

    def __init__(
        self,
        files: StudyFiles,
        contents: ExportContents,
        decoded: DecodedFiles,
        orthanc: OrthancClient,
        *,
        folder: ExportFolder | None,
        retention: timedelta,
    ) -> None:
        self._orthanc = orthanc
        self._folder = folder
        self._decoded = decoded
        self._files = files
        self._contents = contents
        self._retention = retention

    async def run(self, job: RunningJob) -> None:
        """Prepare an export.

        Raises:
            Error: Nothing more can be done now.
        """
        studies = [
            await self._files.find(study_id, job.scope) for study_id in job.orthanc_study_ids
        ]
        job.progress(total=sum(len(study.instances) for study in studies))
        if job.parameters[_FORMAT] == ExportFormat.DICOMDIR:
            files, dicomdir = await self._media(job, studies)
        else:
            files, dicomdir = await self._listed(job, studies), b""
        expires_at = datetime.now(UTC) + self._retention
        await self._contents.write(job.id, files, dicomdir, expires_at)
        source = self._source(job)
        async for some in self._contents.files(job.id):
            # A header may have been read of a file that came after the list was made.
            await source.require_unchanged(some)
        if job.parameters.get(TO_FOLDER):
            await self._write_folder(job, source)

    def _source(self, job: RunningJob) -> _Source:
        decoded = self._decoded if job.parameters.get(_IS_DECODED) else None
        return _Source(self._contents, self._orthanc, self._orthanc.instance_file, decoded)

    async def discard(self, job: RunningJob) -> None:
        """Forget what the export was to hold."""
        await self._contents.remove(job.id)
        if job.parameters.get(TO_FOLDER) and self._folder is not None:
            await self._folder.remove(job.id)

    async def _write_folder(self, job: RunningJob, source: _Source) -> None:
        """Write the files; they count as completed when they are on the disk."""
        if self._folder is None:
            raise FolderNotWritable
        await self._folder.begin(job.id)
        job.progress(completed=0)
        async for member in _members(job.id, source):
            await self._folder.write(job.id, member.name, member.opened)
            if member.name != _DIRECTORY:
                job.advance()
        await self._folder.finish(job.id)

    async def _listed(self, job: RunningJob, studies: Sequence[SourceStudy]) -> list[ExportedFile]:
        """List the files that Orthanc has."""
        names = _names_of(studies)
        found: list[ExportedFile] = []
        handled: set[str] = set()

        async def list_one(stored: tuple[SourceInstance, StoredFile]) -> None:
            instance, file = stored
            handled.add(instance.instance_id)
            with job.counted(instance.sop_instance_uid):
                await self._require_decodable(job, file)
                found.append(ExportedFile(names[instance], file.instance_id, file.revision))

        for study in studies:
            await self._files.for_each(study.instances, list_one)
        _count_missing(job, studies, handled)
        return sorted(found, key=lambda file: file.name)

    async def _media(
        self, job: RunningJob, studies: Sequence[SourceStudy]
    ) -> tuple[list[ExportedFile], bytes]:
        """Make a DICOMDIR of the headers, and name the files as it does."""
        with closing(Media()) as media:
            return await self._directory(job, studies, media)

    async def _directory(
        self, job: RunningJob, studies: Sequence[SourceStudy], media: Media
    ) -> tuple[list[ExportedFile], bytes]:
        handled: set[str] = set()
        added: list[tuple[SourceInstance, StoredFile]] = []

        async def add_one(stored: tuple[SourceInstance, StoredFile]) -> None:
            instance, file = stored
            handled.add(instance.instance_id)
            with job.counted(instance.sop_instance_uid):
                await self._require_decodable(job, file)
                header = await self._files.header(file)
                syntax = file.metadata.get("TransferSyntax", "")
                if job.parameters.get(_IS_DECODED) and syntax not in NATIVE_SYNTAXES:
                    syntax = EXPLICIT_VR_LITTLE_ENDIAN
                await finish_in_thread(media.add, header, syntax)
                added.append(stored)

        for study in studies:
            # One at a time: the directory is one object.
            await self._files.for_each(study.instances, add_one, at_once=1)
        dicomdir = await finish_in_thread(media.finish)
        _count_missing(job, studies, handled)
        files = [
            ExportedFile(media.names[instance.sop_instance_uid], file.instance_id, file.revision)
            for instance, file in added
        ]
        return sorted(files, key=lambda file: file.name), dicomdir

    async def _require_decodable(self, job: RunningJob, file: StoredFile) -> None:
        """Require that a file can be in the export; one whose pixels can't be decoded can't.

        A download must not break off in the middle for it, so every frame is decoded here.

        Raises:
            FrameError: A frame can't be decoded.
            ExportOutdated: Another revision of it is indexed.
        """
        if not job.parameters.get(_IS_DECODED):
            return
        compressed = await self._decoded.find(file.instance_id, file.revision)
        if compressed is not None:
            await self._decoded.check(compressed)


def _names_of(studies: Sequence[SourceStudy]) -> dict[SourceInstance, str]:
    """Number studies, series and instances in their order."""
    names: dict[SourceInstance, str] = {}
    for study_index, study in enumerate(studies):
        series: dict[str, int] = {}
        counts: dict[str, int] = {}
        for instance in study.instances:
            uid = instance.series_instance_uid
            series_index = series.setdefault(uid, len(series))
            index = counts[uid] = counts.get(uid, -1) + 1
            names[instance] = f"ST{study_index:06}/SE{series_index:06}/IM{index:06}.dcm"
    return names


def _count_missing(job: RunningJob, studies: Sequence[SourceStudy], handled: set[str]) -> None:
    for study in studies:
        for instance in study.instances:
            if instance.instance_id not in handled:
                job.fail(instance.sop_instance_uid, NotFound("Orthanc does not have this file."))
