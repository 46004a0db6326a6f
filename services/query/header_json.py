"""Whole headers of stored instances in the DICOM JSON model (PS3.18 F), read on demand."""

import asyncio
import re
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, BinaryIO

import orjson
from cachetools import LRUCache
from pydicom.datadict import tag_for_keyword

from services.dicom.json_model import BULK_ROOT, header_text
from services.errors import InvalidInput, OrthancNotFound, PacsDisabled
from services.orthanc.client import Orthanc
from services.query.series_headers import SeriesHeaders, with_bulk_path
from services.tasks import finish_in_thread


@dataclass(frozen=True, slots=True)
class Header:
    """A whole header.

    It is decoded only when values are needed: decoding 40 MB holds the interpreter lock for seconds
    in any thread, so that all other requests wait.

    Attributes:
        content: JSON object of the elements by tag, eight upper-case hexadecimal digits (PS3.18
            F.2), without blanks.
    """

    content: bytes

    @property
    def json_bytes(self) -> int:
        """Its length as JSON; Python objects take about five times as much memory."""
        return len(self.content)

    @property
    def elements(self) -> dict[str, Any]:
        """The elements as Python objects."""
        elements: dict[str, Any] = orjson.loads(self.content)
        return elements

    async def selected(self, keywords: Sequence[str]) -> "Header":
        """Return the elements of some keywords, in the order of the header.

        Args:
            keywords: Of PS3.6, such as `PatientID`. Absent elements are left out.

        Raises:
            InvalidInput: One of them is not a keyword.
        """
        tags = {_tag_of(keyword) for keyword in keywords}
        if self.json_bytes > _DECODED_BYTES:
            return await finish_in_thread(_cut_out, self.content, tags)
        kept = {tag: element for tag, element in self.elements.items() if tag in tags}
        return Header(orjson.dumps(kept))


_DECODED_BYTES = 256 * 1024
"""Longest JSON that is decoded for a few of its elements, which takes 3 ms."""

_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}]')
"""Strings, and braces outside of strings."""


def _cut_out(content: bytes, tags: Container[str]) -> Header:
    """Cut elements out of a header without decoding it; other threads can run in between."""
    parts, depth, tag, begin = [], 0, "", 0
    for token in _TOKEN.finditer(content):
        first = content[token.start()]
        if first == _OPENING:
            depth += 1
        elif first == _CLOSING:
            depth -= 1
            if depth == 1 and tag in tags:
                parts.append(content[begin : token.end()])
        elif depth == 1:
            begin = token.start()
            tag = content[begin + 1 : token.end() - 1].decode()
    return Header(b"{" + b",".join(parts) + b"}")


_OPENING, _CLOSING = b"{}"


@lru_cache(maxsize=1024)
def _tag_of(keyword: str) -> str:
    # In pydicom's dictionary retired elements without a keyword have an empty one.
    tag = tag_for_keyword(keyword) if keyword else None
    if tag is None:
        message = f"{keyword[:_KEYWORD_MAX_CHARACTERS]!r} is not a keyword of PS3.6."
        raise InvalidInput(message, argument="only")
    return f"{tag:08X}"


_KEYWORD_MAX_CHARACTERS = 64
"""Longest quotation in an error: the longest keyword has 63 characters."""


DICOMWEB_ROOT = "/dicomweb/"
"""Path of long binary values: each BulkDataURI is relative to this server."""

_Key = tuple[str, str]
"""Orthanc's identifier of an instance, and its revision."""

_AT_ONCE = 4
"""Files read at the same time: a query for the headers of a series must not flood Orthanc."""

_MANY = 8
"""From so many simultaneous requests for headers of one series on, all its files are read."""

_KEPT_BYTES = 8 * 1024 * 1024
"""Size of the cached headers as JSON: some thousand of usual size. Larger ones are not cached."""


@dataclass(slots=True)
class _Reading:
    """A header that is being read, and the number of callers that wait for it."""

    task: asyncio.Task[Header]
    waiting: int = 0


class HeaderService:
    """Reads headers from Orthanc; recent ones are cached.

    Args:
        orthanc: None while PACS integration is off.
        series_headers: The store that is asked first.
    """

    def __init__(
        self, orthanc: Orthanc | None, *, series_headers: SeriesHeaders | None = None
    ) -> None:
        self._orthanc = orthanc
        self._series_headers = series_headers
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._asking: Counter[str] = Counter()
        self._readings: dict[_Key, _Reading] = {}
        self._kept: LRUCache[_Key, Header] = LRUCache(
            _KEPT_BYTES, getsizeof=lambda header: header.json_bytes
        )

    @property
    def kept_bytes(self) -> int:
        """Size of the cached headers as JSON, in bytes."""
        return int(self._kept.currsize)

    async def dicom_json(
        self, instance_id: str, revision: str, *, series_id: str | None = None
    ) -> Header:
        """Return the header of an instance, without long bulk data.

        Args:
            instance_id: Orthanc's identifier.
            revision: Of the stored file; another revision is read again.
            series_id: Orthanc's identifier of its series; None: the file is read.

        Raises:
            PacsDisabled: PACS integration is off.
            OrthancNotFound: The instance was deleted.
            OrthancUnavailable: Orthanc does not answer.
            FileRejected: The stored file has no readable structure.
        """
        if self._orthanc is None:
            raise PacsDisabled
        key = (instance_id, revision)
        if key in self._kept:
            return self._kept[key]
        if series_id is not None and self._series_headers is not None:
            content = await self._find(self._series_headers, series_id, key)
            if content is not None:
                return _header(content)
        reading = self._readings.get(key) or self._begin(self._orthanc, key)
        reading.waiting += 1
        try:
            # Shielded, because a cancelled caller must not cancel the reading for the others.
            return await asyncio.shield(reading.task)
        finally:
            reading.waiting -= 1
            if not reading.waiting and not reading.task.done():
                self._forget(key, reading)
                reading.task.cancel()

    async def _find(self, store: SeriesHeaders, series_id: str, key: _Key) -> bytes | None:
        """Look into the store; if many headers of a series are requested, make all of them."""
        self._asking[series_id] += 1
        try:
            content = await store.find(series_id, *key)
            if content is None and self._asking[series_id] >= _MANY:
                await store.prepare(series_id)
                content = await store.find(series_id, *key)
            return content
        finally:
            self._asking[series_id] -= 1
            if not self._asking[series_id]:
                del self._asking[series_id]

    def _begin(self, orthanc: Orthanc, key: _Key) -> _Reading:
        reading = _Reading(asyncio.create_task(self._read(orthanc, key[0])))
        reading.task.add_done_callback(partial(self._end, key, reading))
        self._readings[key] = reading
        return reading

    async def _read(self, orthanc: Orthanc, instance_id: str) -> Header:
        async with self._slots:
            return await _read(orthanc, instance_id)

    def _end(self, key: _Key, reading: _Reading, task: asyncio.Task[Header]) -> None:
        self._forget(key, reading)
        if not task.cancelled() and task.exception() is None:
            header = task.result()
            if header.json_bytes <= self._kept.maxsize:
                self._kept[key] = header

    def _forget(self, key: _Key, reading: _Reading) -> None:
        if self._readings.get(key) is reading:
            del self._readings[key]


async def _read(orthanc: Orthanc, instance_id: str) -> Header:
    stored = await orthanc.client.stored_files([instance_id])
    if not stored:
        raise OrthancNotFound
    return await orthanc.files.beginnings.read(stored[0], _parse)


def _parse(file: BinaryIO, _: int | None) -> Header:
    return _header(with_bulk_path(header_text(file)))


def _header(content: bytes) -> Header:
    return Header(content.replace(BULK_ROOT.encode(), DICOMWEB_ROOT.encode()))
