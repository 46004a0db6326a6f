"""Exporting studies: the jobs that prepare exports, and the archives that are downloaded."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar

from models import JobDocument, JobKind, JobState, StudyDocument
from models.names import contract_name
from models.stored import stored_name
from services.auth.roles import Principal
from services.dicom.display import NATIVE_SYNTAXES
from services.dicom.layout import EXPLICIT_VR_LITTLE_ENDIAN
from services.errors import Error, InvalidInput, NotFound, PacsDisabled
from services.exports.contents import ExportContents, ExportedFile
from services.exports.decoded import DecodedFiles
from services.exports.folder import ExportFolder, FolderNotWritable
from services.exports.media import Media
from services.exports.urls import ExportReference, ExportUrlSigner, export_revision
from services.exports.zipping import ZipMember, zipped
from services.jobs.handler import NewJob, RunningJob, may_pass
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

    def archive(self, job: JobDocument) -> AsyncIterator[bytes]:
        """Stream an export as ZIP archive; files that were deleted since end it with an error.

        Raises:
            NotFound: What it held was dropped, or a part of that.
            PacsDisabled: PACS integration is off.
            OrthancError: A file can't be read.
        """
        if self._orthanc is None:
            raise PacsDisabled
        decoded = self._decoded if job.parameters.get(_IS_DECODED) else None
        members = _members(
            job.id, self._contents, self._orthanc.download, decoded, number_of_files=job.completed
        )
        return zipped(members)


async def _members(
    job_id: str,
    contents: ExportContents,
    opened: Callable[[str], AbstractAsyncContextManager[AsyncIterator[bytes]]],
    decoded: DecodedFiles | None,
    *,
    number_of_files: int | None = None,
) -> AsyncIterator[ZipMember]:
    """Iterate over what an export holds.

    Args:
        job_id: Of the export.
        contents: Knows what that is.
        opened: Opens a stored file.
        decoded: Opens compressed files; None: as they are stored.
        number_of_files: How many there must be: MongoDB drops its documents one by one, and half
            of an export must not look complete. None: as many as there are.

    Raises:
        NotFound: There are fewer.
    """
    found = 0
    pieces = [piece async for piece in contents.dicomdir(job_id)]
    if pieces:
        yield ZipMember(_DIRECTORY, _from_memory(pieces))
    async for file in contents.files(job_id):
        found += 1
        compressed = None if decoded is None else await decoded.find(file.instance_id)
        if decoded is None or compressed is None:
            yield ZipMember(file.name, opened(file.instance_id))
        else:
            yield ZipMember(file.name, decoded.opened(compressed))
    if number_of_files is not None and found < number_of_files:
        raise NotFound("This export is not kept any more. Start a new one.")


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
        if job.parameters.get(TO_FOLDER):
            await self._write_folder(job)

    async def discard(self, job: RunningJob) -> None:
        """Forget what the export was to hold."""
        await self._contents.remove(job.id)
        if job.parameters.get(TO_FOLDER) and self._folder is not None:
            await self._folder.remove(job.id)

    async def _write_folder(self, job: RunningJob) -> None:
        """Write the files; they count as completed when they are on the disk."""
        if self._folder is None:
            raise FolderNotWritable
        await self._folder.begin(job.id)
        job.progress(completed=0)
        decoded = self._decoded if job.parameters.get(_IS_DECODED) else None
        members = _members(job.id, self._contents, self._orthanc.instance_file, decoded)
        async for member in members:
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
            instance, _ = stored
            handled.add(instance.instance_id)
            if await self._is_decodable(job, instance):
                found.append(ExportedFile(names[instance], instance.instance_id))
                job.advance()

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
        handled: dict[str, SourceInstance] = {}

        async def add_one(stored: tuple[SourceInstance, StoredFile]) -> None:
            instance, file = stored
            handled[instance.instance_id] = instance
            if not await self._is_decodable(job, instance):
                return
            try:
                header = await self._files.header(file)
                syntax = file.metadata.get("TransferSyntax", "")
                if job.parameters.get(_IS_DECODED) and syntax not in NATIVE_SYNTAXES:
                    syntax = EXPLICIT_VR_LITTLE_ENDIAN
                await finish_in_thread(media.add, header, syntax)
            except Error as exc:
                if may_pass(exc):
                    raise
                job.fail(instance.sop_instance_uid, exc)
            else:
                job.advance()

        for study in studies:
            # One at a time: the directory is one object.
            await self._files.for_each(study.instances, add_one, at_once=1)
        dicomdir = await finish_in_thread(media.finish)
        _count_missing(job, studies, set(handled))
        files = [
            ExportedFile(media.names[instance.sop_instance_uid], instance_id)
            for instance_id, instance in handled.items()
            if instance.sop_instance_uid in media.names
        ]
        return sorted(files, key=lambda file: file.name), dicomdir

    async def _is_decodable(self, job: RunningJob, instance: SourceInstance) -> bool:
        """Return whether a file can be in the export; one whose pixels can't be decoded can't.

        A download must not break off in the middle for it, so every frame is decoded here.
        """
        if not job.parameters.get(_IS_DECODED):
            return True
        try:
            compressed = await self._decoded.find(instance.instance_id)
            if compressed is not None:
                await self._decoded.check(compressed)
        except Error as exc:
            if may_pass(exc):
                raise
            job.fail(instance.sop_instance_uid, exc)
            return False
        return True


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
