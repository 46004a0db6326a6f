"""Stores one file: checks it, sends it to Orthanc, indexes it in MongoDB."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import BinaryIO

from services.dicom.checking import CheckedFile, check_file
from services.dicom.header import InstanceHeader
from services.dicom.layout import FileLayout, WalkLimits
from services.dicom.patient_override import PatientOverride, overridden, read_modified_at
from services.dicom.person_names import names_agree
from services.dicom.rewriting import PreparedFile, prepare
from services.errors import (
    DatabaseUnavailable,
    FileRejected,
    OrthancError,
    OrthancNotFound,
)
from services.index.pending import PendingInstances
from services.index.record import IndexRecord, header_ids
from services.ingest.delivery import (
    RETURN_SECONDS,
    DeliveredFile,
    Delivery,
    Outage,
    PushAnswer,
)
from services.ingest.results import StoreResult, StoreStatus, conflicting, failed, not_indexed
from services.observability.metrics import UPLOAD_SECONDS, timed
from services.orthanc.answers import StoredFile
from services.orthanc.client import OrthancClient
from services.orthanc.files import OrthancFiles
from services.orthanc.identifiers import OrthancIds
from services.tasks import Coalescer

Require = Callable[[InstanceHeader], None]
"""Raises `FileRejected` for a file that must not be stored."""


class InFlightCounter:
    """Counts operations in progress."""

    def __init__(self) -> None:
        self._count = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    @contextmanager
    def track(self) -> Iterator[None]:
        """Count one operation for as long as the context is open."""
        self._count += 1
        self._quiet.clear()
        try:
            yield
        finally:
            self._count -= 1
            if not self._count:
                self._quiet.set()

    async def wait_idle(self) -> None:
        """Wait until no operation is in progress."""
        await self._quiet.wait()


@dataclass(frozen=True, slots=True)
class ArrivedFile:
    """A file that is stored in Orthanc and not indexed yet."""

    file_name: str
    checked: CheckedFile
    pushed: DeliveredFile


class IndexBatch:
    """Asks Orthanc how it stored files, and indexes them together.

    Args:
        files: Asked which files Orthanc has.
        index: `Indexer.index`.
        outage: Waits until an unavailable Orthanc answers again.
    """

    def __init__(
        self,
        files: OrthancFiles,
        index: Callable[[Sequence[IndexRecord]], Awaitable[object]],
        outage: Outage,
    ) -> None:
        self._files = files
        self._outage = outage
        self._write = index

    async def index(self, batch: Sequence[ArrivedFile]) -> list[int | Exception]:
        """Index files as Orthanc holds them.

        Returns:
            For each file its number of frames, or why it is not indexed.

        Raises:
            DatabaseUnavailable: The files may not be indexed.
            OrthancError: Likewise.
        """
        ids = [arrived.pushed.ids.instance for arrived in batch]
        stored = await self._outage.asking(partial(self._files.stored_files, ids))
        by_id = {one.instance_id: one for one in stored}
        entries = [
            self._entry(arrived, by_id.get(arrived.pushed.ids.instance)) for arrived in batch
        ]
        try:
            await self._write([entry for entry in entries if isinstance(entry, IndexRecord)])
        except DatabaseUnavailable:
            raise
        except Exception:  # noqa: BLE001  # one entry must not keep the others out
            return [await self._indexed_alone(entry) for entry in entries]
        return [one.number_of_frames if isinstance(one, IndexRecord) else one for one in entries]

    async def _indexed_alone(self, entry: IndexRecord | Exception) -> int | Exception:
        if isinstance(entry, Exception):
            return entry
        try:
            await self._write([entry])
        except DatabaseUnavailable:
            # It would fail for the others as well.
            raise
        except Exception as exc:  # noqa: BLE001  # becomes the result of its file
            return exc
        return entry.number_of_frames

    @staticmethod
    def _entry(arrived: ArrivedFile, stored: StoredFile | None) -> IndexRecord | OrthancError:
        if stored is None:
            return OrthancNotFound("It was deleted from Orthanc at once.")
        checked = arrived.checked
        return IndexRecord(
            header=checked.header,
            ids=arrived.pushed.ids,
            revision=stored.revision,
            file_size_bytes=stored.file_size_bytes,
            number_of_frames=checked.number_of_frames,
            not_renderable_reason=checked.not_renderable_reason,
            beginning=checked.beginning if _is_as_sent(arrived, stored) else None,
        )


def _is_as_sent(arrived: ArrivedFile, stored: StoredFile) -> bool:
    """Return whether Orthanc holds the file that was sent; it may be set to encode files anew."""
    is_new = arrived.pushed.status is StoreStatus.STORED
    return is_new and stored.file_size_bytes == arrived.checked.layout.file_size


async def _no_names(_patient_id: str) -> Collection[str]:
    return ()


_MAX_BATCH = 200
"""Files that are indexed at once."""

_GATHER_SECONDS = 0.25
"""Longest wait of a commit for files that are being sent to Orthanc. A commit of thirty files costs
about the same as one of a single file, so waiting for more of them pays off."""


class FileStorage:
    """Stores single files: sends them to Orthanc and indexes them."""

    def __init__(
        self,
        orthanc: OrthancClient,
        files: OrthancFiles,
        index: Callable[[Sequence[IndexRecord]], Awaitable[object]],
        limits: WalkLimits,
        *,
        keep_tiff_preamble: bool = False,
        pending: PendingInstances | None = None,
        return_seconds: float = RETURN_SECONDS,
        find_names: Callable[[str], Awaitable[Collection[str]]] | None = None,
    ) -> None:
        """Make one, without any request.

        Args:
            orthanc: Asked which files it has.
            files: Sends files to Orthanc.
            index: `Indexer.index`.
            limits: Limits of a file's structure.
            keep_tiff_preamble: Keep the preamble of files that are also TIFF.
            pending: Tracks the instances that are being stored.
            find_names: Finds the patient names that are stored with a PatientID; None: an override
                needs no confirmation.
            return_seconds: Longest wait for an unavailable Orthanc.
        """
        outage = Outage(orthanc, return_seconds=return_seconds)
        self._delivery = Delivery(orthanc, files, outage)
        self._orthanc = orthanc
        self._files = files
        self._limits = limits
        self._keep_tiff_preamble = keep_tiff_preamble
        self._pending = pending or PendingInstances()
        self._find_names = find_names or _no_names
        self._traffic = InFlightCounter()
        self._indexing: Coalescer[ArrivedFile, int] = Coalescer(
            IndexBatch(files, index, outage).index, max_weight=_MAX_BATCH, gather=self._gather
        )

    async def store(
        self,
        file_name: str,
        file: BinaryIO,
        override: PatientOverride,
        *,
        when_pushed: Callable[[], Awaitable[None]],
        require: Require | None = None,
    ) -> StoreResult:
        """Check one file, send it to Orthanc, and index it together with other files.

        Args:
            file_name: For the result.
            file: Seekable; read in threads, in parts.
            override: Written into the dataset that is stored.
            when_pushed: Called when the file is no longer needed, whether it was stored or not.
            require: Refuses what must not be stored; called in a thread.

        Raises:
            OSError: The file can't be read.
        """
        with self._pending.track() as add:
            try:
                with timed(UPLOAD_SECONDS, "store"):
                    outcome = await self._push(file_name, file, override, add, require)
            finally:
                await when_pushed()
            if isinstance(outcome, StoreResult):
                return outcome
            with timed(UPLOAD_SECONDS, "index"):
                return await self._indexed(outcome)

    async def _push(
        self,
        file_name: str,
        file: BinaryIO,
        override: PatientOverride,
        add: Callable[[str], None],
        require: Require | None,
    ) -> ArrivedFile | StoreResult:
        try:
            with self._traffic.track():
                checked, pushed = await self._checked_and_pushed(file, override, add, require)
        except OSError:
            raise
        except Exception as exc:  # noqa: BLE001  # one file must not fail its neighbours
            return failed(file_name, exc)
        if pushed.status is StoreStatus.CONFLICT:
            return conflicting(file_name, checked.header, pushed.ids)
        return ArrivedFile(file_name, checked, pushed)

    async def _indexed(self, arrived: ArrivedFile) -> StoreResult:
        header = arrived.checked.header
        try:
            frames = await self._indexing.submit(arrived)
        except OrthancNotFound as exc:
            return failed(arrived.file_name, exc)
        except (DatabaseUnavailable, OrthancError) as exc:
            return not_indexed(arrived.file_name, header, exc)
        except Exception as exc:  # noqa: BLE001  # one file must not fail its neighbours
            return failed(arrived.file_name, exc, is_in_orthanc=True)
        return StoreResult(
            file_name=arrived.file_name,
            status=arrived.pushed.status,
            frame_count=frames,
            header=header,
            ids=arrived.pushed.ids,
        )

    async def _gather(self) -> None:
        """Wait until no file is being sent, at most `_GATHER_SECONDS`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_GATHER_SECONDS):
                await self._traffic.wait_idle()

    async def _checked_and_pushed(
        self,
        file: BinaryIO,
        override: PatientOverride,
        add: Callable[[str], None],
        require: Require | None,
    ) -> tuple[CheckedFile, DeliveredFile]:
        await self._require_same_patient(file, override)
        # One thread does everything that blocks: a thread switch costs as much as the check.
        work = partial(self._check_and_send, file, override, add, require)
        checked, ids, prepared, answer = await self._files.in_thread(work)
        # Closing a file that was only read does not block.
        with closing(prepared):
            pushed = await self._delivery.find_outcome(prepared, ids, answer)
        is_conflict = pushed.status is StoreStatus.CONFLICT and prepared.is_overridden
        if is_conflict and await self._differs_by_date_only(
            file, checked.layout, override, ids.instance
        ):
            pushed = replace(pushed, status=StoreStatus.ALREADY_STORED)
        return checked, pushed

    def _check_and_send(
        self,
        file: BinaryIO,
        override: PatientOverride,
        add: Callable[[str], None],
        require: Require | None,
    ) -> tuple[CheckedFile, OrthancIds, PreparedFile, PushAnswer]:
        checked = check_file(file, limits=self._limits)
        if require is not None:
            require(checked.header)
        if not override.changes(checked.header):
            override = PatientOverride()
        prepared = self._prepared(file, checked.layout, override)
        checked = replace(
            checked,
            header=overridden(checked.header, override),
            beginning=None if prepared.is_overridden else checked.beginning,
        )
        ids = header_ids(checked.header)
        try:
            add(ids.instance)
            return checked, ids, prepared, self._delivery.send(prepared)
        except BaseException:
            prepared.close()
            raise

    def _prepared(
        self,
        file: BinaryIO,
        layout: FileLayout,
        override: PatientOverride,
        modified_at: datetime | None = None,
    ) -> PreparedFile:
        return prepare(
            file,
            layout,
            override=override,
            modified_at=modified_at,
            keep_tiff_preamble=self._keep_tiff_preamble,
            limits=self._limits,
        )

    async def _require_same_patient(self, file: BinaryIO, override: PatientOverride) -> None:
        """Require that a PatientID override does not combine two patients.

        If studies are stored under that PatientID, one of them must have the file's patient name.

        Raises:
            FileRejected: PATIENT_MISMATCH.
        """
        if override.patient_id is None or override.is_confirmed:
            return
        check = partial(check_file, file, limits=self._limits)
        header = (await self._files.in_thread(check)).header
        if not override.changes(header):
            return
        header = overridden(header, override)
        names = await self._find_names(header.patient.patient_id)
        if names and not any(names_agree(header.patient.patient_name, name) for name in names):
            message = (
                "This PatientID is stored with another patient name. Send confirmPatient: true to "
                "store the file under this PatientID nevertheless."
            )
            raise FileRejected("PATIENT_MISMATCH", message)

    async def _differs_by_date_only(
        self, file: BinaryIO, layout: FileLayout, override: PatientOverride, instance_id: str
    ) -> bool:
        """Return whether Orthanc has the same file with the same override, made at another time."""
        for stored in await self._orthanc.stored_files([instance_id]):
            modified_at = await self._files.beginnings.read(
                stored, lambda beginning, _: read_modified_at(beginning)
            )
            if modified_at is None:
                return False
            prepared = await self._files.in_thread(
                partial(self._prepared, file, layout, override, modified_at)
            )
            with closing(prepared):
                md5 = await self._files.in_thread(prepared.md5)
            return md5 == await self._orthanc.dicom_md5(instance_id)
        return False
