"""Stores DICOM files and ZIP archives of them, with one result per file."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO
from weakref import WeakValueDictionary

from services.dicom.patient_override import PatientOverride, validate_override
from services.dicom.values import clean_text
from services.errors import Error, FileRejected, PacsDisabled
from services.ingest.archives import (
    ArchiveLimits,
    Member,
    UploadPermits,
    UploadSlot,
    acquire_slot,
    close_file,
    is_archive,
    members,
)
from services.ingest.batch import map_ordered
from services.ingest.progress import UploadCounts
from services.ingest.results import StoreResult, StoreStatus, refused
from services.ingest.storing import FileStorage, Require
from services.observability.metrics import UPLOADED_FILES, UPLOADS_IN_PROGRESS
from services.tasks import finish_in_thread

_NAME_CHARACTERS = 255

_WINDOW = 128
"""Files of one call in progress: a few are open and sent to Orthanc, the others wait for the commit
that they share."""


@dataclass(frozen=True, slots=True)
class SentFile:
    """A file to store.

    Attributes:
        name: A label, from the sender.
        open: Opens the file, seekable and binary; called in a thread. The file is closed after use.
    """

    name: str
    open: Callable[[], BinaryIO]

    @classmethod
    def from_path(cls, path: Path, name: str | None = None) -> "SentFile":
        """Make one of a local file, which is opened later, when it is stored."""
        return cls(name or path.name, lambda: path.open("rb"))


class Ingest:
    """Stores files.

    Args:
        storage: Stores single files; None while PACS integration is off.
        limits: Of ZIP archives.
        concurrency: Files of one call that are sent to Orthanc at once.
        permits: Shared by all calls; None: each call has `concurrency` permits of its own.
        caller_concurrency: Files of all calls of one caller that are sent to Orthanc at once, so
            that others always find a free thread. None: no limit across calls.
    """

    def __init__(
        self,
        storage: FileStorage | None,
        *,
        limits: ArchiveLimits,
        concurrency: int,
        permits: asyncio.Semaphore | None = None,
        caller_concurrency: int | None = None,
    ) -> None:
        self._storage = storage
        self._limits = limits
        self._concurrency = concurrency
        self._permits = permits
        self._caller_concurrency = caller_concurrency
        self._callers: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def with_shared_permits(self, concurrency: int) -> "Ingest":
        """Return an instance for many simultaneous calls.

        Args:
            concurrency: Files of all calls together that are sent to Orthanc at once.
        """
        return Ingest(
            self._storage,
            limits=self._limits,
            concurrency=concurrency,
            permits=asyncio.Semaphore(concurrency),
        )

    async def store(
        self,
        files: Sequence[SentFile],
        override: PatientOverride | None = None,
        *,
        caller: str | None = None,
        require: Require | None = None,
        counts: UploadCounts | None = None,
    ) -> list[StoreResult]:
        """Store files and return their results; see `results`."""
        results = self.results(files, override, caller=caller, require=require, counts=counts)
        return [result async for result in results]

    async def results(
        self,
        files: Sequence[SentFile],
        override: PatientOverride | None = None,
        *,
        caller: str | None = None,
        require: Require | None = None,
        counts: UploadCounts | None = None,
    ) -> AsyncGenerator[StoreResult, None]:
        """Store files; yield one result per DICOM file, in the order sent.

        ZIP archives are recognized by their content and replaced by their members. An invalid file
        does not affect the others.

        Args:
            files: DICOM files and ZIP archives.
            override: Written into the dataset of each file.
            caller: The sender; all calls of one caller share `caller_concurrency`.
            require: Refuses files that must not be stored, by their headers; called in a thread.
            counts: Counts what happens to the files, as it happens.

        Raises:
            PacsDisabled: PACS integration is off.
            InvalidInput: The override is not a valid PatientID or PatientName.
        """
        storage = self._storage
        if storage is None:
            raise PacsDisabled
        override = override or PatientOverride()
        counts = counts or UploadCounts()
        validate_override(override.patient_id, override.patient_name)

        permits = UploadPermits(
            self._permits or asyncio.Semaphore(self._concurrency), *self._share_of(caller)
        )

        async def store_one(item: UploadSlot | StoreResult) -> StoreResult:
            if isinstance(item, StoreResult):
                counts.checked += 1
                return item

            async def when_pushed() -> None:
                counts.checked += 1
                await item.aclose()

            try:
                async with aclosing(item):
                    return await storage.store(
                        item.name, item.file, override, when_pushed=when_pushed, require=require
                    )
            except OSError as exc:
                return refused(item.name, _unreadable(exc), StoreStatus.FAILED)

        async def counted(item: UploadSlot | StoreResult) -> StoreResult:
            result = await store_one(item)
            if result.error is None:
                counts.stored += 1
            else:
                counts.failed += 1
            return result

        with UPLOADS_IN_PROGRESS.track_inprogress():
            async with (
                aclosing(self._expanded(files, permits, counts)) as items,
                aclosing(
                    map_ordered(items, counted, concurrency=_WINDOW, discard=_discard)
                ) as ordered,
            ):
                async for result in ordered:
                    UPLOADED_FILES.labels(result.status.value).inc()
                    yield result

    def _share_of(self, caller: str | None) -> list[asyncio.Semaphore]:
        if caller is None or self._caller_concurrency is None:
            return []
        fresh = asyncio.Semaphore(self._caller_concurrency)
        # The dictionary is weak: a semaphore lives as long as the calls that use it.
        return [self._callers.setdefault(caller, fresh)]

    async def _expanded(
        self, files: Sequence[SentFile], permits: UploadPermits, counts: UploadCounts
    ) -> AsyncGenerator[UploadSlot | StoreResult, None]:
        """Open files one after the other, and replace archives by their members."""
        members_left = self._limits.max_members
        counts.received += len(files)
        for sent in files:
            name = _label(sent.name)
            try:
                file, packed = await _open(sent)
            except OSError as exc:
                yield refused(name, _unreadable(exc), StoreStatus.FAILED)
                continue
            if not packed:
                yield await acquire_slot(name, file, permits, is_on_disk=False)
                continue
            with file:
                limits = replace(self._limits, max_members=members_left)
                unpacking = _unpacked(name, file, limits, permits, counts)
                async with aclosing(unpacking) as unpacked:
                    async for item in unpacked:
                        members_left = max(0, members_left - 1)
                        yield item


async def _unpacked(
    name: str,
    file: BinaryIO,
    limits: ArchiveLimits,
    permits: UploadPermits,
    counts: UploadCounts,
) -> AsyncGenerator[UploadSlot | StoreResult, None]:
    unpacking = members(file, limits)
    is_counted = False
    try:
        while member := await _next_member(unpacking):
            if not is_counted:
                # The first member takes the place of its archive.
                counts.received += member.siblings
                is_counted = True
            label = _label(f"{name}/{member.name}")
            if isinstance(member.content, FileRejected):
                yield refused(label, member.content, StoreStatus.REJECTED)
            else:
                on_disk = member.is_on_disk
                yield await acquire_slot(label, member.content, permits, is_on_disk=on_disk)
    except FileRejected as exc:
        yield refused(name, exc, StoreStatus.REJECTED)
    except OSError as exc:
        yield refused(name, _unreadable(exc), StoreStatus.FAILED)
    finally:
        unpacking.close()


async def _open(sent: SentFile) -> tuple[BinaryIO, bool]:
    """Open a file and find out whether it is an archive; close it if the caller is cancelled."""
    opened: list[tuple[BinaryIO, bool]] = []
    try:
        await finish_in_thread(lambda: opened.append(_opened(sent)))
    except asyncio.CancelledError:
        for file, _ in opened:
            file.close()
        raise
    return opened[0]


def _opened(sent: SentFile) -> tuple[BinaryIO, bool]:
    file = sent.open()
    try:
        return file, is_archive(file)
    except BaseException:
        file.close()
        raise


async def _next_member(unpacking: Generator[Member, None, None]) -> Member | None:
    """Unpack the next member; a cancelled caller waits for the thread that reads the archive."""
    unpacked: list[Member | None] = []
    try:
        await finish_in_thread(lambda: unpacked.append(next(unpacking, None)))
    except asyncio.CancelledError:
        for member in unpacked:
            if member is not None and not isinstance(member.content, FileRejected):
                await close_file(member.content, is_on_disk=member.is_on_disk)
        raise
    return unpacked[0]


async def _discard(item: UploadSlot | StoreResult) -> None:
    if isinstance(item, UploadSlot):
        await item.aclose()


def _label(name: str) -> str:
    """Return a name for display: without control and bidi characters, of limited length."""
    return (clean_text(name) or "file")[-_NAME_CHARACTERS:]


def _unreadable(exc: OSError) -> Error:
    return SpoolingFailed(detail=type(exc).__name__)


class SpoolingFailed(Error):
    """The local disk is full, or a file can't be read."""

    code = "FILE_UNREADABLE"
    default_message = "The server could not read or unpack this file. Is its disk full?"
