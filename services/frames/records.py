"""Reads and writes of MongoDB for frames: instances, and the deaths of the quarantine."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol
from weakref import WeakValueDictionary

from cachetools import LRUCache
from pymongo import ReturnDocument

from models import InstanceDocument, SeriesDocument, StudyDocument, SuspectFrameDocument
from models.instance import EARLIER_ORDER, instance_sort
from models.stored import stored_name
from services.database import readable, translated_database_faults
from services.dicom.display import (
    MONOCHROME1,
    DisplayHeader,
    FrameDisplay,
    FrameGeometry,
    PixelDescription,
    VoiFunction,
    Window,
    make_windows,
    photometric_interpretation,
)
from services.errors import OrthancNotFound, OrthancTimedOut
from services.frames.signing import study_revision
from services.orthanc.client import OrthancClient
from services.tasks import finish_in_thread

_IMAGE_ORIENTATION_PATIENT = stored_name(InstanceDocument.image_orientation_patient)
_IMAGE_POSITION_PATIENT = stored_name(InstanceDocument.image_position_patient)
_ORTHANC_SERIES_ID = stored_name(InstanceDocument.orthanc_series_id)
_STACK_ORDER = stored_name(SeriesDocument.stack_order)
_CREATED_AT = stored_name(StudyDocument.created_at)
_LAST_CRASH_AT = stored_name(SuspectFrameDocument.last_crash_at)


class RenderableInstance(Protocol):
    """The part of `models.InstanceDocument` that rendering reads."""

    id: str
    orthanc_series_id: str
    revision: str
    file_size_bytes: int
    transfer_syntax_uid: str | None
    use_orthanc_preview: bool
    number_of_frames: int
    not_renderable_reason: str | None
    rows: int | None
    columns: int | None
    samples_per_pixel: int | None
    bits_allocated: int | None
    bits_stored: int | None
    pixel_representation: int | None
    photometric_interpretation: str | None
    window_center: float | None
    window_width: float | None
    voi_lut_function: str | None
    rescale_slope: float | None
    rescale_intercept: float | None
    has_complex_display: bool


_log = logging.getLogger(__name__)

_KEPT_BYTES = 256 * 1024 * 1024
"""Memory for parsed headers, in bytes; the newest one is kept whatever its size."""

_PARSED_FACTOR = 40
"""Functional groups take so many times their bytes once pydicom has parsed them."""

_HEADER_MAX_BYTES = 64 * 1024 * 1024
"""Functional groups of 30,000 frames fit; what is longer is shown by the indexed attributes."""


_ELEMENT_HEAD_BYTES = 12
"""Tag, VR and length of PixelData (PS3.5 7.1.2)."""

_HeaderKey = tuple[str, str]
"""Identifier and revision of an instance."""


@dataclass(frozen=True, slots=True)
class Presentation:
    """How a frame is stored and shown."""

    description: PixelDescription
    display: FrameDisplay


@dataclass(frozen=True, slots=True)
class FrameAttributes:
    """What viewers want to know of one frame beside its pixels."""

    windows: tuple[Window, ...] = ()
    geometry: FrameGeometry = field(default_factory=FrameGeometry)


@dataclass(frozen=True, slots=True)
class _KeptHeader:
    """A header, None when it can't be parsed, and what keeping it costs."""

    header: DisplayHeader | None
    cost_bytes: int


_ENTRY_BYTES = 512
"""What an entry costs besides the header: its key, and its places in the tables of the cache."""


class PresentationLoader:
    """Finds how frames are stored and shown; keeps the headers that it had to fetch.

    Args:
        orthanc: Where headers are.
        fetch_seconds: Longest fetch of a header, in seconds.
        kept_bytes: Memory for parsed headers, in bytes.
    """

    def __init__(
        self, orthanc: OrthancClient, *, fetch_seconds: float, kept_bytes: int = _KEPT_BYTES
    ) -> None:
        self._orthanc = orthanc
        self._fetch_seconds = fetch_seconds
        self._headers: LRUCache[_HeaderKey, _KeptHeader] = LRUCache(
            max(kept_bytes, 1), getsizeof=lambda kept: kept.cost_bytes
        )
        self._fetching: WeakValueDictionary[_HeaderKey, asyncio.Lock] = WeakValueDictionary()

    async def find(self, instance: RenderableInstance, frame_index: int) -> Presentation:
        """Return how a frame, 0-based, is stored and shown.

        Raises:
            OrthancUnavailable: The header is needed and Orthanc does not answer.
        """
        if not instance.has_complex_display:
            return indexed_presentation(instance)
        header = await self._header(instance)
        if header is None:
            return indexed_presentation(instance)
        try:
            return await finish_in_thread(
                lambda: Presentation(
                    header.description(instance.transfer_syntax_uid), header.frame(frame_index)
                )
            )
        except Exception as exc:  # noqa: BLE001  # pydicom raises whatever damage makes it raise
            _log.warning("display of %s can't be read: %s", instance.id, type(exc).__name__)
            return indexed_presentation(instance)

    async def attributes(self, instance: RenderableInstance, frame_index: int) -> FrameAttributes:
        """Return windows and geometry of a frame, 0-based, as its functional groups say.

        Raises:
            OrthancUnavailable: Orthanc does not answer.
        """
        header = await self._header(instance)
        if header is None:
            return FrameAttributes()
        return await finish_in_thread(
            lambda: FrameAttributes(header.frame(frame_index).windows, header.geometry(frame_index))
        )

    async def _header(self, instance: RenderableInstance) -> DisplayHeader | None:
        key = (instance.id, instance.revision)
        # All frames of a cine are asked for at once, and one fetch serves them.
        async with self._fetching.setdefault(key, asyncio.Lock()):
            if key not in self._headers:
                content = await self._fetch_in_time(instance.id)
                header = await finish_in_thread(_parsed, content, instance.id)
                cost_bytes = 0 if header is None else len(content) * _PARSED_FACTOR
                # Even one that costs more than all may is kept, alone: its frames need it.
                cost_bytes = min(_ENTRY_BYTES + cost_bytes, int(self._headers.maxsize))
                self._headers[key] = _KeptHeader(header, cost_bytes)
            return self._headers[key].header

    async def _fetch_in_time(self, instance_id: str) -> bytes:
        try:
            async with asyncio.timeout(self._fetch_seconds):
                return await self._fetch(instance_id)
        except TimeoutError as exc:
            raise OrthancTimedOut(detail="a header for display") from exc

    async def _fetch(self, instance_id: str) -> bytes:
        """Read the stored file up to the value of its PixelData: its tag and VR count."""
        files = await self._orthanc.stored_files([instance_id])
        if not files:
            raise OrthancNotFound
        end = _HEADER_MAX_BYTES
        if files[0].pixel_data_offset is not None:
            end = min(files[0].pixel_data_offset + _ELEMENT_HEAD_BYTES, end)
        content = bytearray()
        async with self._orthanc.instance_file(instance_id) as chunks:
            async for chunk in chunks:
                content += chunk
                if len(content) >= end:
                    break
        return bytes(content[:end])


def indexed_presentation(instance: RenderableInstance) -> Presentation:
    """Return how all frames of an instance are stored and shown, as far as the index says it.

    It says all unless `has_complex_display`.
    """
    photometric = photometric_interpretation(instance.photometric_interpretation)
    allocated = instance.bits_allocated or 0
    stored = instance.bits_stored or allocated
    return Presentation(
        PixelDescription(
            transfer_syntax_uid=instance.transfer_syntax_uid or "",
            rows=instance.rows or 0,
            columns=instance.columns or 0,
            samples_per_pixel=instance.samples_per_pixel or 1,
            bits_allocated=allocated,
            bits_stored=stored,
            high_bit=stored - 1,
            is_signed=instance.pixel_representation == 1,
            photometric_interpretation=photometric,
        ),
        FrameDisplay(
            is_inverted=photometric == MONOCHROME1,
            rescale_slope=instance.rescale_slope or 1.0,
            rescale_intercept=instance.rescale_intercept or 0.0,
            windows=make_windows(
                [instance.window_center], [instance.window_width], instance.voi_lut_function
            ),
        ),
    )


def indexed_attributes(stored: Mapping[str, Any]) -> FrameAttributes:
    """Return windows and geometry of the only frame of an instance, as they are indexed.

    Args:
        stored: The document of the instance.
    """
    position = stored.get(_IMAGE_POSITION_PATIENT)
    orientation = stored.get(_IMAGE_ORIENTATION_PATIENT)
    return FrameAttributes(
        tuple(
            Window(
                window["center"],
                window["width"],
                VoiFunction.of(window["function"]),
                window.get("explanation"),
            )
            for window in stored.get("windows") or ()
        ),
        FrameGeometry(position and tuple(position), orientation and tuple(orientation)),
    )


def _parsed(content: bytes, instance_id: str) -> DisplayHeader | None:
    try:
        return DisplayHeader(content)
    except Exception as exc:  # noqa: BLE001  # pydicom raises whatever damage makes it raise
        _log.warning("header of %s can't be read for display: %s", instance_id, type(exc).__name__)
        return None


async def find_instance(instance_id: str) -> InstanceDocument | None:
    """Return an instance by Orthanc's identifier.

    Raises:
        DatabaseUnavailable: MongoDB does not answer.
    """
    with translated_database_faults():
        # Every cold frame waits for this: Beanie's own way to it takes 0.3 ms longer.
        found = await readable(InstanceDocument.get_pymongo_collection()).find_one(
            {"_id": instance_id}
        )
    return None if found is None else InstanceDocument.model_validate(found)


async def find_following(instance: RenderableInstance, limit: int) -> list[InstanceDocument]:
    """Return the instances after one in the stack of its series.

    Args:
        instance: Where to begin; it is not returned.
        limit: Most instances.

    Raises:
        DatabaseUnavailable: MongoDB does not answer.
    """
    with translated_database_faults():
        series = await readable(SeriesDocument.get_pymongo_collection()).find_one(
            {"_id": instance.orthanc_series_id}, (_STACK_ORDER,)
        )
        order = (series or {}).get(_STACK_ORDER, EARLIER_ORDER)
        instances = readable(InstanceDocument.get_pymongo_collection())
        place = await instances.find_one({"_id": instance.id}, (order,))
        if place is None:
            return []
        condition: dict[str, Any] = {_ORTHANC_SERIES_ID: instance.orthanc_series_id}
        if place.get(order) is not None:
            condition[order] = {"$gte": place[order]}
        documents = await (
            instances.find(condition)
            .sort(list(instance_sort(order).items()))
            .limit(limit + 1)
            .to_list()
        )
    found = [InstanceDocument.model_validate(document) for document in documents]
    ids = [document.id for document in found]
    # Beyond many with one key, or after a removal, it is not among them: nothing follows.
    return found[ids.index(instance.id) + 1 :] if instance.id in ids else []


async def find_study_revision(study_id: str) -> str | None:
    """Return the revision of a study (`study_revision`), None when it is not there.

    Raises:
        DatabaseUnavailable: MongoDB does not answer.
    """
    studies = readable(StudyDocument.get_pymongo_collection())
    with translated_database_faults():
        found = await studies.find_one({"_id": study_id}, (_CREATED_AT,))
    return None if found is None else study_revision(found[_CREATED_AT])


class CrashRecords:
    """Crashes of frames in MongoDB, by `instance/revision/frame_index`; one atomic command each.

    All methods raise `DatabaseUnavailable` when MongoDB does not answer.
    """

    async def load(self) -> Mapping[str, int]:
        """Return the crashes of all frames; few frames ever have one."""
        with translated_database_faults():
            documents = await SuspectFrameDocument.find_all().to_list()
        return {document.id: document.crashes for document in documents}

    async def add(self, frame: str) -> int:
        """Count a crash and return how many that frame has now, in all processes."""
        with translated_database_faults():
            stored = await SuspectFrameDocument.get_pymongo_collection().find_one_and_update(
                {"_id": frame},
                {"$inc": {"crashes": 1}, "$set": {_LAST_CRASH_AT: datetime.now(UTC)}},
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
        # An upsert that returns the document after it always returns one.
        return int(stored["crashes"]) if stored else 1

    async def remove(self, frame: str) -> None:
        """Forget the crashes of a frame."""
        with translated_database_faults():
            await SuspectFrameDocument.get_pymongo_collection().delete_one({"_id": frame})
