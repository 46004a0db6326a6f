"""One file in, one result out: check, push to Orthanc, index in MongoDB."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from typing import BinaryIO

from services.coalescing import Coalescer
from services.dicom.checking import CheckedFile, check_file
from services.dicom.header import InstanceHeader
from services.dicom.layout import WalkLimits
from services.dicom.rewriting import PreparedFile, prepare
from services.errors import DatabaseUnavailable, OrthancError, OrthancNotFound
from services.ingest.arrivals import Arrivals, Arrived
from services.ingest.entry import IndexEntry
from services.ingest.landing import Landing
from services.ingest.overriding import PatientOverride, overridden
from services.ingest.pushing import Answer, Pushed, find_outcome, send
from services.ingest.refusals import conflicting, failed, not_indexed
from services.ingest.results import StoreResult, StoreStatus
from services.ingest.traffic import Traffic
from services.orthanc.client import OrthancClient
from services.orthanc.files import OrthancFiles
from services.orthanc.identifiers import OrthancIds, orthanc_ids

_MAX_BATCH = 200
"""Files that are indexed at once."""

_GATHER_SECONDS = 0.25
"""A commit costs MongoDB and us about the same for one file and for thirty, so it waits until
nothing is on its way to Orthanc, and no longer than this."""


class FileStorage:
    """Stores single files: pushes them to Orthanc and indexes them."""

    def __init__(
        self,
        orthanc: OrthancClient,
        files: OrthancFiles,
        index: Callable[[Sequence[IndexEntry]], Awaitable[None]],
        limits: WalkLimits,
        *,
        keep_tiff_preamble: bool = False,
        landing: Landing | None = None,
    ) -> None:
        """Nothing is asked yet.

        Args:
            orthanc: Tells what it has.
            files: Takes files.
            index: `Indexer.index`.
            limits: What a file may ask for.
            keep_tiff_preamble: Leave the preamble of files that are TIFF as well.
            landing: Is told what is under way.
        """
        self._orthanc = orthanc
        self._files = files
        self._limits = limits
        self._keep_tiff_preamble = keep_tiff_preamble
        self._landing = landing or Landing()
        self._traffic = Traffic()
        self._indexing: Coalescer[Arrived, int] = Coalescer(
            Arrivals(orthanc, index).index, max_weight=_MAX_BATCH, gather=self._gather
        )

    async def store(
        self,
        file_name: str,
        file: BinaryIO,
        override: PatientOverride,
        *,
        when_pushed: Callable[[], Awaitable[None]],
    ) -> StoreResult:
        """Check one file, bring it into Orthanc, and index it with others that come meanwhile.

        Args:
            file_name: For the result.
            file: Seekable; read in threads, never whole.
            override: Written into the dataset that is stored.
            when_pushed: Called when the file is not needed any more, whatever became of it.

        Raises:
            OSError: The file can't be read.
        """
        with self._landing.one_more() as announce:
            try:
                outcome = await self._push(file_name, file, override, announce)
            finally:
                await when_pushed()
            return outcome if isinstance(outcome, StoreResult) else await self._indexed(outcome)

    async def _push(
        self,
        file_name: str,
        file: BinaryIO,
        override: PatientOverride,
        announce: Callable[[str], None],
    ) -> Arrived | StoreResult:
        try:
            with self._traffic.one_more():
                checked, pushed = await self._checked_and_pushed(file, override, announce)
        except OSError:
            raise
        except Exception as exc:  # noqa: BLE001  # one file must not fail its neighbours
            return failed(file_name, exc)
        if pushed.status is StoreStatus.CONFLICT:
            return conflicting(file_name, checked.header, pushed.ids)
        return Arrived(file_name, checked, pushed)

    async def _indexed(self, arrived: Arrived) -> StoreResult:
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
        """Let a commit wait for files that are on their way, but not for a large one."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_GATHER_SECONDS):
                await self._traffic.wait_until_quiet()

    async def _checked_and_pushed(
        self, file: BinaryIO, override: PatientOverride, announce: Callable[[str], None]
    ) -> tuple[CheckedFile, Pushed]:
        # One thread does all that blocks: each change of thread costs as much as the check.
        work = partial(self._check_and_send, file, override, announce)
        checked, ids, prepared, answer = await self._files.in_thread(work)
        # Closing a file that was only read does not block.
        with closing(prepared):
            return checked, await find_outcome(self._orthanc, prepared, ids, answer)

    def _check_and_send(
        self, file: BinaryIO, override: PatientOverride, announce: Callable[[str], None]
    ) -> tuple[CheckedFile, OrthancIds, PreparedFile, Answer]:
        checked = check_file(file, limits=self._limits)
        prepared = prepare(
            file,
            checked.layout,
            patient_id=override.patient_id,
            patient_name=override.patient_name,
            keep_tiff_preamble=self._keep_tiff_preamble,
            limits=self._limits,
        )
        checked = replace(checked, header=overridden(checked.header, override))
        ids = _ids_of(checked.header)
        try:
            announce(ids.instance)
            return checked, ids, prepared, send(self._files, prepared)
        except BaseException:
            prepared.close()
            raise


def _ids_of(header: InstanceHeader) -> OrthancIds:
    return orthanc_ids(
        header.patient.patient_id,
        header.study.study_instance_uid,
        header.series.series_instance_uid,
        header.sop_instance_uid,
    )
