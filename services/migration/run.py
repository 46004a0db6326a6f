"""One run of the migration: every local file once into Orthanc, then its records."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

from services.dicom.checking import check_file
from services.dicom.layout import WalkLimits
from services.dicom.parser import walk
from services.dicom.rewriting import prepare
from services.errors import DatabaseUnavailable, Error, OrthancError
from services.importing.folders import FoundFile
from services.importing.outcome import FileOutcome, Refusal, Tally
from services.importing.run import GATHERED_FILES
from services.ingest.batch import map_ordered
from services.ingest.results import StoreResult
from services.ingest.service import Ingest, SentFile
from services.migration.local_files import LocalFile
from services.migration.path_map import PathMap
from services.migration.source import LegacyInstances
from services.orthanc.client import OrthancClient
from services.tasks import finish_in_thread


class MigrationRefused(Error):
    """A file of the old system that is not migrated."""

    code = "NOT_MIGRATED"

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code  # type: ignore[misc]  # the reason is the code


class MigrationRun:
    """Migrates; iterate over `outcomes`, look at `tally` for the progress."""

    def __init__(
        self,
        source: LegacyInstances,
        ingest: Ingest,
        orthanc: OrthancClient,
        *,
        orthanc_url: str,
        path_map: PathMap,
        concurrency: int,
        limits: WalkLimits,
    ) -> None:
        """Make a run; it reads files only when `outcomes` is iterated.

        Args:
            source: The old records.
            ingest: Stores the files.
            orthanc: Where the stored bytes are verified.
            orthanc_url: Address of Orthanc that the records get.
            path_map: Where the old paths are now.
            concurrency: Files that are sent at once.
            limits: Of the check in a dry run.
        """
        self._source = source
        self._ingest = ingest.with_shared_permits(concurrency)
        self._orthanc = orthanc
        self._orthanc_url = orthanc_url
        self._path_map = path_map
        self._concurrency = concurrency
        self._limits = limits
        self.tally = Tally()
        self.records = 0

    async def count(self) -> None:
        """Count the files, for the time that is left."""
        self.tally.total = await self._source.count_files()
        self.tally.is_total_known = True

    async def outcomes(self, *, is_dry: bool = False) -> AsyncGenerator[FileOutcome, None]:
        """Migrate and yield one outcome per file.

        A run that was stopped goes on with what has no Orthanc id yet: the records are the journal.

        Args:
            is_dry: Only check the files; send and change nothing.

        Raises:
            PacsDisabled: PACS integration is off.
            DatabaseUnavailable: The old database does not answer.
        """

        async def work(file: LocalFile) -> FileOutcome:
            return await self._migrate(file, is_dry=is_dry)

        async with (
            aclosing(_generated(self._source)) as files,
            aclosing(
                map_ordered(files, work, concurrency=self._concurrency + GATHERED_FILES)
            ) as ordered,
        ):
            async for outcome in ordered:
                self.tally.add(outcome)
                yield outcome

    async def _migrate(self, file: LocalFile, *, is_dry: bool) -> FileOutcome:
        path = self._path_map.resolve(file.recorded_path)
        found = FoundFile(path)
        try:
            found = replace(found, size_bytes=await finish_in_thread(self._check, path, file))
            if is_dry:
                self.records += len(file.record_ids)
                return FileOutcome(found, stored=1)
            return await self._send(found, file)
        except DatabaseUnavailable:
            raise
        except Error as exc:
            refusal = Refusal(str(path), exc.code, exc.message)
            return FileOutcome(found, failed=(refusal,))

    def _check(self, path: Path, file: LocalFile) -> int:
        """Check a file against its records and return its size, in bytes."""
        try:
            with path.open("rb") as opened:
                checked = check_file(opened, limits=self._limits)
        except FileNotFoundError as exc:
            raise MigrationRefused("FILE_MISSING", "The file is not there.") from exc
        except OSError as exc:
            raise MigrationRefused("FILE_UNREADABLE", "The file can't be read.") from exc
        if file.sop_instance_uids and file.sop_instance_uids != {checked.header.sop_instance_uid}:
            raise MigrationRefused(
                "UID_MISMATCH", "The records of this file have another SOPInstanceUID."
            )
        return checked.layout.file_size

    async def _send(self, found: FoundFile, file: LocalFile) -> FileOutcome:
        [result] = await self._ingest.store([SentFile.from_path(found.path)])
        if result.error is not None or result.ids is None:
            raise result.error or OrthancError()
        await self._verify(found.path, result)
        linked = await self._source.link(file, result.ids, self._orthanc_url)
        # Add after the await: other files are linked at the same time.
        self.records += linked
        return FileOutcome(found, stored=1, instance_ids=(result.ids.instance,))

    async def _verify(self, path: Path, result: StoreResult) -> None:
        """Compare what Orthanc holds with the file, as far as both are the same bytes.

        The preamble may have been zeroed before the push (PS3.10 7.1), or the file been stored
        before with the preamble of a TIFF.
        """
        if result.ids is None:
            raise OrthancError
        held = await self._orthanc.dicom_md5(result.ids.instance)
        if held not in await finish_in_thread(_digests, path, self._limits):
            raise MigrationRefused("CONTENT_CONFLICT", "Orthanc holds other content of this file.")


async def _generated(source: LegacyInstances) -> AsyncGenerator[LocalFile, None]:
    async for file in source.files():
        yield file


def _digests(path: Path, limits: WalkLimits) -> set[str]:
    """Return the MD5 of what is sent of a file, with its preamble and with a zeroed one.

    Zero bytes behind the last element are not sent, see `services.dicom.rewriting.prepare`.
    """
    with path.open("rb") as file:
        layout = walk(file, limits)
        return {
            prepare(file, layout, keep_tiff_preamble=keeps_tiff, limits=limits).md5()
            for keeps_tiff in (False, True)
        }
