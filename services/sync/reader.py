"""From instances that Orthanc holds to entries for the index, with few calls per series."""

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.dicom.frame_count import renderable_frames
from services.dicom.reading import header_from_orthanc
from services.errors import (
    Error,
    OrthancAuthenticationFailed,
    OrthancError,
    OrthancNotFound,
    OrthancTimedOut,
    OrthancUnavailable,
    RecordRefused,
)
from services.index.record import IndexRecord
from services.orthanc.answers import StoredFile
from services.orthanc.client import OrthancClient
from services.orthanc.identifiers import OrthancIds, orthanc_ids
from services.tasks import wait_for_all

_log = logging.getLogger(__name__)

WHOLE_SERIES_MAX_INSTANCES = 2_000
"""Orthanc answers a whole series at once, about 40 kB an instance: 80 MB at this size."""

WHOLE_SERIES_MIN_SHARE = 0.25
"""With less than this share of a series wanted, single headers are faster than all of them."""

HANDFUL = 8
"""So few single calls cost less than asking which way is better."""

_CONTROLS = 3
"""Other series that are asked whether Orthanc reads headers at all: one of them may be as bad."""

_TOO_SLOW = "Orthanc takes too long to read its header."

Tags = Mapping[str, Any]


@dataclass(slots=True)
class Headers:
    """Headers in Orthanc's full format by instance id, and reasons of what can't be read.

    Instances that vanished meanwhile are in neither.
    """

    tags: Mapping[str, Tags] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)


def reads_whole_series(wanted: int, indexed: int) -> bool:
    """Decide whether a series is read by one call or instance by instance.

    Args:
        wanted: Number of its instances to read.
        indexed: Number of its instances that are known already.
    """
    size = wanted + indexed
    return (
        wanted > HANDFUL
        and size <= WHOLE_SERIES_MAX_INSTANCES
        and wanted >= WHOLE_SERIES_MIN_SHARE * size
    )


def reason_of(exc: BaseException) -> str:
    """Tell an error in a sentence for the log and for people, without anybody's data."""
    if isinstance(exc, RecordRefused):
        return exc.message
    detail = exc.detail or exc.message if isinstance(exc, Error) else type(exc).__name__
    return detail[:200]


class HeaderReader:
    """Reads the headers of some instances.

    Args:
        orthanc: Where they are.
        calls: Bounds the calls for headers at once.
        instance_ids: All that are wanted.
    """

    def __init__(
        self, orthanc: OrthancClient, calls: asyncio.Semaphore, instance_ids: Collection[str]
    ) -> None:
        self._orthanc = orthanc
        self._calls = calls
        self._wanted = instance_ids

    async def read(self, series_id: str, files: Sequence[StoredFile], indexed: int) -> Headers:
        """Read what is wanted of one series.

        Args:
            series_id: Orthanc's.
            files: The instances.
            indexed: Number of the series' instances that are indexed already.

        Raises:
            OrthancUnavailable: Orthanc does not answer, or reads no header in time.
            OrthancAuthenticationFailed: It does not accept our credentials.
        """
        if reads_whole_series(len(files), indexed):
            try:
                async with self._calls:
                    return Headers(await self._orthanc.series_instance_tags(series_id))
            except OrthancTimedOut:
                # A single one may hold the answer up; an Orthanc that hangs says nothing here.
                await self._orthanc.system()
                _log.warning("series %s takes too long and is read one by one", series_id)
            except (OrthancUnavailable, OrthancAuthenticationFailed):
                raise
            except OrthancNotFound:
                return Headers()
            except OrthancError as exc:
                # One unreadable file fails the whole answer: find out which.
                _log.info("series %s is read one by one: %s", series_id, exc.detail)
        return await self._one_by_one(files)

    async def _one_by_one(self, files: Iterable[StoredFile]) -> Headers:
        faults: dict[str, str] = {}
        found = await wait_for_all(self._tags_of(file.instance_id, faults) for file in files)
        return Headers({id_: tags for id_, tags in found if tags is not None}, faults)

    async def _tags_of(self, instance_id: str, faults: dict[str, str]) -> tuple[str, Tags | None]:
        try:
            async with self._calls:
                return instance_id, await self._orthanc.instance_tags(instance_id)
        except OrthancTimedOut as exc:
            await self._expect_others_to_be_read()
            _log.warning("instance %s takes too long to read", instance_id, exc_info=exc)
            faults[instance_id] = _TOO_SLOW
        except (OrthancUnavailable, OrthancAuthenticationFailed):
            raise
        except OrthancNotFound:
            pass
        except OrthancError as exc:
            faults[instance_id] = reason_of(exc)
        return instance_id, None

    async def _expect_others_to_be_read(self) -> None:
        """Tell one header that can't be read from an Orthanc that reads none.

        Raises:
            OrthancUnavailable: It is not about the one; or Orthanc is away altogether.
        """
        controls = [
            other
            for listing in await self._orthanc.series(0, _CONTROLS)
            for other in [id_ for id_ in listing.instance_ids if id_ not in self._wanted][:1]
        ]
        outcomes = await asyncio.gather(
            *(self._orthanc.instance_tags(control) for control in controls),
            return_exceptions=True,
        )
        silent = [outcome for outcome in outcomes if isinstance(outcome, OrthancUnavailable)]
        if silent and len(silent) == len(controls):
            raise silent[0]


CONCURRENT_CALLS = 4
"""Calls for headers at once: Orthanc answers modalities and viewers besides."""


@dataclass(slots=True)
class Reading:
    """What was read, and what could not be.

    Attributes:
        entries: Ready for the index. Instances that vanished meanwhile are left out.
        faults: Reasons by instance id, for the log and for people.
    """

    entries: list[IndexRecord] = field(default_factory=list)
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


def _entry(tags: Tags, file: StoredFile, ids: OrthancIds, frame_max_pixels: int) -> IndexRecord:
    header = header_from_orthanc(
        tags,
        transfer_syntax_uid=file.metadata.get("TransferSyntax"),
        sop_class_uid=file.metadata.get("SopClassUid"),
        pixel_data_offset=file.pixel_data_offset,
        file_size=file.file_size_bytes,
    )
    number_of_frames, reason = renderable_frames(header, max_pixels=frame_max_pixels)
    return IndexRecord(
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
