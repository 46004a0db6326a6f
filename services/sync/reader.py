"""Reads index records of stored instances from the bytes of their files.

The files pass the same check and the same reader as uploads. Orthanc is never asked for attributes:
see `services.orthanc.beginning`.
"""

import asyncio
import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import BinaryIO

from services.dicom.checking import CheckedFile, check_file
from services.dicom.header import InstanceHeader
from services.dicom.layout import WalkLimits
from services.errors import (
    Error,
    OrthancAuthenticationFailed,
    OrthancNotFound,
    OrthancTimedOut,
    OrthancUnavailable,
    RecordRefused,
)
from services.index.record import IndexRecord, header_ids
from services.orthanc.answers import StoredFile, StudyListing
from services.orthanc.beginning import PIXEL_DATA_BYTES, FileBeginnings
from services.orthanc.client import OrthancClient
from services.orthanc.identifiers import OrthancIds
from services.tasks import HANGING_SECONDS, beat, wait_for_all

_log = logging.getLogger(__name__)

_CONTROLS = 3
"""Instances of other series that are read to find out whether Orthanc sends any file."""

_TOO_SLOW = "Orthanc takes too long to read its header."


def reason_of(exc: BaseException) -> str:
    """Return the reason of an error for logs and reports, without patient data."""
    if isinstance(exc, RecordRefused):
        return exc.message
    detail = exc.detail or exc.message if isinstance(exc, Error) else type(exc).__name__
    return detail[:200]


@dataclass(slots=True)
class Reading:
    """The records that were read, and the reasons of those that could not be read.

    Attributes:
        entries: Records for the index. Instances that no longer exist are left out.
        faults: Reasons by instance id, for the log and for users.
    """

    entries: list[IndexRecord] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)


async def read_entries(
    orthanc: OrthancClient,
    beginnings: FileBeginnings,
    files: Iterable[StoredFile],
    *,
    limits: WalkLimits,
) -> Reading:
    """Read the headers of stored instances from their files.

    Args:
        orthanc: Has the instances.
        beginnings: Reads their files.
        files: The instances with their metadata (`POST /tools/bulk-content`).
        limits: The largest structure that is accepted, the same as for uploads.

    Raises:
        OrthancUnavailable: Orthanc does not answer, or sends no file in time; nothing is known
            about any instance.
        OrthancAuthenticationFailed: Orthanc does not accept our credentials.
    """
    wanted = list(files)
    wanted_ids = {file.instance_id for file in wanted}
    reader = _FileReader(orthanc, beginnings, wanted_ids, limits)
    read = await wait_for_all(reader.read(file) for file in wanted)
    result = Reading(faults=reader.faults)
    result.entries.extend(entry for entry in read if entry is not None)
    return result


class _FileReader:
    """Reads single files; `faults` has the reasons of those that can't be read."""

    def __init__(
        self,
        orthanc: OrthancClient,
        beginnings: FileBeginnings,
        instance_ids: Collection[str],
        limits: WalkLimits,
    ) -> None:
        self.faults: dict[str, str] = {}
        self._orthanc = orthanc
        self._beginnings = beginnings
        self._wanted = instance_ids
        self._limits = limits
        self._parents: dict[str, asyncio.Task[StudyListing]] = {}

    async def read(self, file: StoredFile) -> IndexRecord | None:
        """Read one instance; None when it no longer exists or can't be read."""
        try:
            checked = await self._checked(file)
            # A thousand files of a slow Orthanc take long; each file that was read is progress.
            beat(HANGING_SECONDS)
            return _record(file, checked, await self._ids(file, checked.header))
        except OrthancTimedOut as exc:
            await self._expect_others_to_be_read()
            _log.warning("instance %s takes too long to read", file.instance_id, exc_info=exc)
            self.faults[file.instance_id] = _TOO_SLOW
        except (OrthancUnavailable, OrthancAuthenticationFailed):
            raise
        except OrthancNotFound:
            pass
        except Exception as exc:  # noqa: BLE001  # whatever one header does, the others count
            _log.warning("instance %s can't be indexed", file.instance_id, exc_info=exc)
            self.faults[file.instance_id] = reason_of(exc)
        return None

    async def _checked(self, file: StoredFile) -> CheckedFile:
        checked = await self._beginnings.read(file, self._check, pixel_data_bytes=PIXEL_DATA_BYTES)
        if checked.has_uncounted_frames:
            # Its fragments lie all over the file, and Orthanc 1.10 sends no ranges of it. So few
            # files are like this that reading them twice is cheaper than reading all files whole.
            checked = await self._beginnings.read(file, self._check, pixel_data_bytes=None)
        return checked

    def _check(self, content: BinaryIO, file_size: int | None) -> CheckedFile:
        return check_file(content, limits=self._limits, file_size=file_size, is_stored=True)

    async def _ids(self, file: StoredFile, header: InstanceHeader) -> OrthancIds:
        """Return the ids of an instance; Orthanc is asked where the computed id differs."""
        computed = header_ids(header)
        if computed.instance == file.instance_id:
            return computed
        # One call serves all instances of a series.
        question = self._parents.get(file.series_id)
        if question is None:
            question = asyncio.create_task(self._orthanc.series_study(file.series_id))
            self._parents[file.series_id] = question
        study = await asyncio.shield(question)
        return OrthancIds(computed.patient, study.study_id, file.series_id, file.instance_id)

    async def _expect_others_to_be_read(self) -> None:
        """Distinguish one file that can't be read from an Orthanc that reads none.

        Raises:
            OrthancUnavailable: Orthanc sends no file, or does not answer at all.
        """
        ids = [
            other
            for listing in await self._orthanc.series(0, _CONTROLS)
            for other in [id_ for id_ in listing.instance_ids if id_ not in self._wanted][:1]
        ]
        controls = await self._orthanc.stored_files(ids) if ids else []
        outcomes = await asyncio.gather(
            *(self._checked(control) for control in controls), return_exceptions=True
        )
        silent = [outcome for outcome in outcomes if isinstance(outcome, OrthancUnavailable)]
        if silent and len(silent) == len(controls):
            raise silent[0]


def _record(file: StoredFile, checked: CheckedFile, ids: OrthancIds) -> IndexRecord:
    return IndexRecord(
        header=checked.header,
        ids=ids,
        revision=file.revision,
        file_size_bytes=file.file_size_bytes,
        number_of_frames=checked.number_of_frames,
        not_renderable_reason=checked.not_renderable_reason,
        beginning=checked.beginning,
    )
