"""One run of an import."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from models.instance import InstanceDocument
from services.database import translated_database_faults
from services.dicom.checking import check_file
from services.dicom.layout import WalkLimits
from services.errors import FileRejected
from services.importing.folders import FoundFile, walk_files
from services.importing.journal import Journal
from services.importing.outcome import FileOutcome, Refusal, Tally, outcome_of
from services.ingest.archives import is_archive
from services.ingest.batch import map_ordered
from services.ingest.results import StoreResult, StoreStatus, refused
from services.ingest.service import Ingest, SentFile, SpoolingFailed
from services.tasks import finish_in_thread

_LOOK_AHEAD_FILES = 200
"""Files that are looked up in journal and index at once."""

_ASKED_AT_ONCE = 5_000
"""Ids of one query, 55 bytes each: 200 archives may hold millions, and a query 16 MB."""

_RECORDED_AT_ONCE = 100
"""Files between two writes of the journal: so many are sent again after a crash."""


GATHERED_FILES = 64
"""Files in progress beside those that are sent: they wait to be indexed together. Each is open."""


class ImportRun:
    """Imports files; iterate over `outcomes`, look at `tally` for the progress."""

    def __init__(
        self,
        ingest: Ingest,
        database: AsyncDatabase[dict[str, Any]],
        journal: Journal,
        *,
        concurrency: int,
        limits: WalkLimits,
    ) -> None:
        """Make a run; it reads files only when `outcomes` is iterated.

        Args:
            ingest: Stores the files.
            database: Asked whether files that were sent are still indexed.
            journal: The files that earlier runs sent.
            concurrency: Files that are sent at once.
            limits: Of the check in a dry run.
        """
        self._ingest = ingest.with_shared_permits(concurrency)
        self._instances = database[InstanceDocument.Settings.name]
        self._journal = journal
        self._concurrency = concurrency
        self._limits = limits
        self.tally = Tally()

    async def count(self, paths: Sequence[Path]) -> None:
        """Count the files, for the time that is left; run it beside `outcomes`."""
        files = walk_files(paths)
        while counted := await finish_in_thread(lambda: sum(1 for _ in islice(files, 1000))):
            self.tally.total += counted
        self.tally.is_total_known = True

    async def outcomes(
        self, paths: Sequence[Path], *, is_dry: bool = False
    ) -> AsyncGenerator[FileOutcome, None]:
        """Import and yield one outcome per file, in the order found.

        Args:
            paths: Files and folders.
            is_dry: Only check; send and record nothing.

        Raises:
            PacsDisabled: PACS integration is off.
            DatabaseUnavailable: MongoDB does not answer.
        """
        unrecorded: list[FileOutcome] = []

        async def work(item: FoundFile | FileOutcome) -> FileOutcome:
            if isinstance(item, FileOutcome):
                return item
            return await (self._check(item) if is_dry else self._send(item))

        try:
            async with (
                aclosing(self._planned(paths)) as planned,
                aclosing(
                    map_ordered(planned, work, concurrency=self._concurrency + GATHERED_FILES)
                ) as ordered,
            ):
                async for outcome in ordered:
                    self.tally.add(outcome)
                    if not is_dry and _may_be_recorded(outcome):
                        unrecorded.append(outcome)
                    if len(unrecorded) >= _RECORDED_AT_ONCE:
                        await self._record(unrecorded)
                    yield outcome
        finally:
            # Also after Ctrl-C: what is stored need not be sent again. A write of milliseconds.
            self._journal.record((one.file, one.instance_ids) for one in unrecorded)

    async def _planned(
        self, paths: Sequence[Path]
    ) -> AsyncGenerator[FoundFile | FileOutcome, None]:
        """Yield what to send, and the outcome of what needs no sending."""
        async for files in _in_chunks(walk_files(paths)):
            known = await finish_in_thread(partial(self._journal.look_up, files))
            there = await self._still_there({id_ for ids in known.values() for id_ in ids})
            for file in files:
                ids = known.get(file.path)
                if file.error is not None:
                    refusal = Refusal(str(file.path), "FILE_UNREADABLE", file.error)
                    yield FileOutcome(file, failed=(refusal,))
                elif ids is not None and there.issuperset(ids):
                    yield FileOutcome(file, already_stored=len(ids))
                else:
                    yield file

    async def _still_there(self, instance_ids: set[str]) -> set[str]:
        there: set[str] = set()
        wanted = sorted(instance_ids)
        for start in range(0, len(wanted), _ASKED_AT_ONCE):
            chunk = wanted[start : start + _ASKED_AT_ONCE]
            with translated_database_faults():
                found = self._instances.find({"_id": {"$in": chunk}}, {"_id": 1})
                there.update([instance["_id"] async for instance in found])
        return there

    async def _send(self, file: FoundFile) -> FileOutcome:
        results = await self._ingest.store([SentFile.from_path(file.path)])
        return outcome_of(file, results)

    async def _check(self, file: FoundFile) -> FileOutcome:
        return outcome_of(file, [await finish_in_thread(partial(self._checked, file))])

    def _checked(self, file: FoundFile) -> StoreResult:
        name = file.path.name
        try:
            with file.path.open("rb") as opened:
                if not is_archive(opened):
                    check_file(opened, limits=self._limits)
        except FileRejected as exc:
            return refused(name, exc, StoreStatus.REJECTED)
        except OSError as exc:
            return refused(name, SpoolingFailed(detail=type(exc).__name__), StoreStatus.FAILED)
        return StoreResult(file_name=name, status=StoreStatus.STORED)

    async def _record(self, unrecorded: list[FileOutcome]) -> None:
        rows = [(one.file, one.instance_ids) for one in unrecorded]
        unrecorded.clear()
        await finish_in_thread(partial(self._journal.record, rows))


def _may_be_recorded(outcome: FileOutcome) -> bool:
    return bool(outcome.instance_ids) and not outcome.failed


async def _in_chunks(files: Iterator[FoundFile]) -> AsyncIterator[list[FoundFile]]:
    while chunk := await finish_in_thread(lambda: list(islice(files, _LOOK_AHEAD_FILES))):
        yield chunk
