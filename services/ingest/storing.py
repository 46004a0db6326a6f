"""One file in, one result out: check, push to Orthanc, index in MongoDB."""

import asyncio
import logging
import secrets
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from services.dicom.checking import CheckedFile, check_file
from services.dicom.header import InstanceHeader
from services.dicom.layout import WalkLimits
from services.dicom.rewriting import PreparedFile, prepare
from services.dicom.values import clean_person_name, clean_text
from services.errors import (
    DatabaseUnavailable,
    Error,
    FileRejected,
    OrthancError,
    OrthancNotFound,
    OrthancRefused,
    OrthancUnavailable,
    RecordTooLarge,
)
from services.ingest.coalescing import Coalescer
from services.ingest.entry import IndexEntry
from services.ingest.pushing import Pushed, push
from services.ingest.results import StoreResult, StoreStatus, refused
from services.orthanc.answers import StoredFile
from services.orthanc.client import OrthancClient
from services.orthanc.files import OrthancFiles
from services.orthanc.identifiers import OrthancIds, orthanc_ids

_log = logging.getLogger(__name__)

_NOT_PUSHED = "Failed to upload to Orthanc PACS. {} The file was not stored; send it again then."
_NOT_INDEXED = (
    "The file is stored in Orthanc PACS, but could not be indexed yet. It appears by itself; "
    "sending it again does no harm."
)


_MAX_BATCH = 200
"""Files that are indexed at once."""


@dataclass(frozen=True, slots=True)
class PatientOverride:
    """The patient to write into stored files; None keeps what a file says."""

    patient_id: str | None = None
    patient_name: str | None = None


@dataclass(frozen=True, slots=True)
class _Arrived:
    """A file that Orthanc has and the index not yet."""

    checked: CheckedFile
    ids: OrthancIds


@dataclass(slots=True)
class _Flow:
    """How many files are being pushed."""

    pushing: int = 0


@dataclass(frozen=True, slots=True)
class FileStorage:
    """Stores single files.

    Attributes:
        orthanc: Tells what it has.
        files: Takes files.
        index: `Indexer.index`.
        keep_tiff_preamble: Leave the preamble of files that are TIFF as well.
        gather_seconds: How long files wait for those that are being pushed, to be indexed with
            them: a commit costs the same for one and for dozens. In seconds.
    """

    orthanc: OrthancClient
    files: OrthancFiles
    index: Callable[[Sequence[IndexEntry]], Awaitable[None]]
    limits: WalkLimits
    keep_tiff_preamble: bool = False
    gather_seconds: float = 0.015
    _flow: _Flow = field(init=False, default_factory=_Flow)
    _indexing: Coalescer["_Arrived", int] = field(init=False)

    def __post_init__(self) -> None:
        """Index what arrives at the same time together."""
        indexing = Coalescer(
            self._index,
            max_weight=_MAX_BATCH,
            gather_seconds=self.gather_seconds,
            expects_more=lambda: self._flow.pushing > 0,
        )
        object.__setattr__(self, "_indexing", indexing)

    async def store(
        self,
        file_name: str,
        file: BinaryIO,
        override: PatientOverride,
        turns: AbstractAsyncContextManager[object],
    ) -> StoreResult:
        """Store one file. Whatever is wrong with it or with a server is in the result.

        Args:
            file_name: For the result.
            file: Seekable; read in threads, never whole.
            override: Written into the dataset that is stored.
            turns: Held while the file is checked and pushed, but not while it is indexed: waiting
                for a commit that many share must not keep Orthanc idle.
        """
        try:
            async with turns:
                checked, pushed = await self._push(file, override)
            if pushed.status is StoreStatus.CONFLICT:
                return _conflict(file_name, checked, pushed)
            return await self._indexed(file_name, checked, pushed)
        except (FileRejected, OrthancRefused) as exc:
            return refused(file_name, exc, StoreStatus.REJECTED)
        except OrthancError as exc:
            return refused(file_name, _said(exc, _NOT_PUSHED.format(exc.message)), _FAILED)
        except Error as exc:
            return refused(file_name, exc, _FAILED)
        except OSError:
            raise
        except Exception as exc:  # noqa: BLE001  # one file must not fail its neighbours
            return refused(file_name, _unexpected(exc), _FAILED)

    async def _push(self, file: BinaryIO, override: PatientOverride) -> tuple[CheckedFile, Pushed]:
        self._flow.pushing += 1
        try:
            return await self._checked_and_pushed(file, override)
        finally:
            self._flow.pushing -= 1

    async def _checked_and_pushed(
        self, file: BinaryIO, override: PatientOverride
    ) -> tuple[CheckedFile, Pushed]:
        checked, prepared = await asyncio.to_thread(self._prepare, file, override)
        try:
            return checked, await push(self.orthanc, self.files, prepared, _ids_of(checked.header))
        finally:
            # Closing a file that was only read does not block.
            prepared.close()

    async def _indexed(self, file_name: str, checked: CheckedFile, pushed: Pushed) -> StoreResult:
        try:
            frames = await self._indexing.submit(_Arrived(checked, pushed.ids))
        except (DatabaseUnavailable, OrthancUnavailable) as exc:
            return replace(
                refused(file_name, _said(exc, _NOT_INDEXED), _FAILED), header=checked.header
            )
        return StoreResult(
            file_name=file_name,
            status=pushed.status,
            frame_count=frames,
            header=checked.header,
            ids=pushed.ids,
        )

    def _prepare(
        self, file: BinaryIO, override: PatientOverride
    ) -> tuple[CheckedFile, PreparedFile]:
        checked = check_file(file, limits=self.limits)
        prepared = prepare(
            file,
            checked.layout,
            patient_id=override.patient_id,
            patient_name=override.patient_name,
            keep_tiff_preamble=self.keep_tiff_preamble,
            limits=self.limits,
        )
        return replace(checked, header=overridden(checked.header, override)), prepared

    async def _index(self, batch: Sequence["_Arrived"]) -> list[int | Exception]:
        """Index what Orthanc holds; return each number of frames."""
        stored = await self.orthanc.stored_files([arrived.ids.instance for arrived in batch])
        by_id = {one.instance_id: one for one in stored}
        entries = [
            await self._entry(arrived, found)
            if (found := by_id.get(arrived.ids.instance))
            else OrthancNotFound("It was deleted from Orthanc at once.")
            for arrived in batch
        ]
        try:
            await self.index([entry for entry in entries if isinstance(entry, IndexEntry)])
        except RecordTooLarge:
            return [await self._indexed_alone(entry) for entry in entries]
        return [
            entry.number_of_frames if isinstance(entry, IndexEntry) else entry for entry in entries
        ]

    async def _indexed_alone(self, entry: IndexEntry | Exception) -> int | Exception:
        if isinstance(entry, Exception):
            return entry
        try:
            await self.index([entry])
        except RecordTooLarge as exc:
            return exc
        return entry.number_of_frames

    async def _entry(self, arrived: "_Arrived", stored: StoredFile) -> IndexEntry:
        checked = arrived.checked
        frames = checked.number_of_frames
        if frames > 1:
            frames = min(frames, await self._frames_of_orthanc(arrived.ids.instance, frames))
        return IndexEntry(
            header=checked.header,
            ids=arrived.ids,
            revision=stored.revision,
            file_size_bytes=stored.file_size_bytes,
            number_of_frames=frames,
            not_renderable_reason=checked.not_renderable_reason,
        )

    async def _frames_of_orthanc(self, instance_id: str, otherwise: int) -> int:
        try:
            return await self.orthanc.frame_count(instance_id) or otherwise
        except OrthancUnavailable:
            raise
        except OrthancError:
            # Orthanc can't count the frames of some files that it can show.
            return otherwise


_FAILED = StoreStatus.FAILED


def overridden(header: InstanceHeader, override: PatientOverride) -> InstanceHeader:
    """Return the header as the stored file has it."""
    patient = header.patient
    if override.patient_id is not None:
        patient = replace(patient, patient_id=clean_text(override.patient_id) or "")
    if override.patient_name is not None:
        patient = replace(patient, patient_name=clean_person_name(override.patient_name))
    return replace(header, patient=patient)


def _ids_of(header: InstanceHeader) -> OrthancIds:
    return orthanc_ids(
        header.patient.patient_id,
        header.study.study_instance_uid,
        header.series.series_instance_uid,
        header.sop_instance_uid,
    )


def _conflict(file_name: str, checked: CheckedFile, pushed: Pushed) -> StoreResult:
    message = "Another file with the same SOPInstanceUID is stored already; that one stays."
    return StoreResult(
        file_name=file_name,
        status=StoreStatus.CONFLICT,
        header=checked.header,
        ids=pushed.ids,
        error=FileRejected("CONTENT_CONFLICT", message),
    )


def _unexpected(exc: Exception) -> Error:
    """Log what went wrong and where, but not its message: it may quote the file."""
    reference = secrets.token_hex(8)
    place = traceback.extract_tb(exc.__traceback__)[-1]
    kind = type(exc).__name__
    _log.error("Unexpected %s %s at %s:%s", kind, reference, place.name, place.lineno)
    return Error(f"This file could not be stored. Reference for the log: {reference}.")


def _said(error: Error, message: str) -> Error:
    """Return an error of the same kind, with what its caller should know."""
    told = type(error)(message, detail=error.detail or error.message)
    told.__cause__ = error
    return told
