"""From instances that Orthanc holds to entries for the index, with few calls per series."""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from services.dicom.frame_count import renderable_frames
from services.dicom.reading import header_from_orthanc
from services.errors import OrthancAuthenticationFailed, OrthancNotFound, OrthancUnavailable
from services.ingest.entry import IndexEntry
from services.orthanc.answers import StoredFile
from services.orthanc.client import OrthancClient
from services.orthanc.identifiers import OrthancIds, orthanc_ids
from services.sync.header_reading import HeaderReader, Tags, reason_of
from services.sync.waiting import wait_for_all

_log = logging.getLogger(__name__)

CONCURRENT_CALLS = 4
"""Calls for headers at once: Orthanc answers modalities and viewers besides."""


@dataclass(slots=True)
class Reading:
    """What was read, and what could not be.

    Attributes:
        entries: Ready for the index. Instances that vanished meanwhile are left out.
        faults: Reasons by instance id, for the log and for people.
    """

    entries: list[IndexEntry] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)


async def read_entries(
    orthanc: OrthancClient,
    files: Iterable[StoredFile],
    *,
    frame_max_pixels: int,
    indexed_by_series: Mapping[str, int] | None = None,
) -> Reading:
    """Read the headers of stored instances, series by series.

    Args:
        orthanc: Where they are.
        files: The instances with their metadata (`POST /tools/bulk-content`).
        frame_max_pixels: Largest frame that is shown, in pixels.
        indexed_by_series: Number of instances that are indexed already, by Orthanc's series id:
            a few new instances of a big series are read one by one.

    Raises:
        OrthancUnavailable: Orthanc does not answer, or reads no header in time; nothing is known
            about any instance.
        OrthancAuthenticationFailed: Orthanc does not accept our credentials.
    """
    by_series: dict[str, list[StoredFile]] = {}
    for file in files:
        by_series.setdefault(file.series_id, []).append(file)
    indexed = indexed_by_series or {}
    calls = asyncio.Semaphore(CONCURRENT_CALLS)
    wanted = {file.instance_id for members in by_series.values() for file in members}
    reader = _SeriesReader(orthanc, HeaderReader(orthanc, calls, wanted), calls, frame_max_pixels)
    readings = await wait_for_all(
        reader.read(series_id, members, indexed.get(series_id, 0))
        for series_id, members in by_series.items()
    )
    return Reading(
        entries=[entry for reading in readings for entry in reading.entries],
        faults={
            instance_id: reason
            for reading in readings
            for instance_id, reason in reading.faults.items()
        },
    )


class _SeriesReader:
    def __init__(
        self,
        orthanc: OrthancClient,
        headers: HeaderReader,
        calls: asyncio.Semaphore,
        frame_max_pixels: int,
    ) -> None:
        self._orthanc = orthanc
        self._headers = headers
        self._calls = calls
        self._frame_max_pixels = frame_max_pixels

    async def read(self, series_id: str, files: Sequence[StoredFile], indexed: int) -> Reading:
        headers = await self._headers.read(series_id, files, indexed)
        result = Reading(faults=headers.faults)
        ids = None
        for file in files:
            tags = headers.tags.get(file.instance_id)
            if tags is None:
                continue
            try:
                ids = await self._parents(tags, file, ids)
                result.entries.append(
                    await asyncio.to_thread(_entry, tags, file, ids, self._frame_max_pixels)
                )
            except (OrthancUnavailable, OrthancAuthenticationFailed):
                raise
            except OrthancNotFound:
                continue
            except Exception as exc:  # noqa: BLE001  # whatever one header does, the others count
                _log.warning("instance %s can't be indexed", file.instance_id, exc_info=exc)
                result.faults[file.instance_id] = reason_of(exc)
        return result

    async def _parents(
        self, tags: Tags, file: StoredFile, sibling: OrthancIds | None
    ) -> OrthancIds:
        """Return the ids of an instance: computed, or asked where Orthanc computes otherwise."""
        computed = orthanc_ids(
            *(_text(tags, tag) for tag in ("0010,0020", "0020,000d", "0020,000e", "0008,0018"))
        )
        if computed.instance == file.instance_id:
            return computed
        if sibling is not None and sibling.series == file.series_id:
            return OrthancIds(sibling.patient, sibling.study, sibling.series, file.instance_id)
        async with self._calls:
            study = await self._orthanc.series_study(file.series_id)
        return OrthancIds(study.patient_id, study.study_id, file.series_id, file.instance_id)


def _entry(tags: Tags, file: StoredFile, ids: OrthancIds, frame_max_pixels: int) -> IndexEntry:
    header = header_from_orthanc(
        tags,
        transfer_syntax_uid=file.metadata.get("TransferSyntax"),
        sop_class_uid=file.metadata.get("SopClassUid"),
        pixel_data_offset=file.pixel_data_offset,
        file_size=file.file_size_bytes,
    )
    number_of_frames, reason = renderable_frames(header, max_pixels=frame_max_pixels)
    return IndexEntry(
        header=header,
        ids=ids,
        revision=file.revision,
        file_size_bytes=file.file_size_bytes,
        number_of_frames=number_of_frames,
        not_renderable_reason=reason,
    )


def _text(tags: Tags, tag: str) -> str:
    value = tags.get(tag, {}).get("Value", "")
    return value.strip(" \0") if isinstance(value, str) else ""
