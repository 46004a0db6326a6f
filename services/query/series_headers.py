"""The store of headers: whole series in the DICOM JSON model, compressed, in MongoDB.

A header is made from its file when it is requested or when its study becomes stable, once for all
processes. A series has chunks of up to 64 headers. Each chunk is a piece of a gzip file, so that a
response is assembled without compression, and a single header is read without reading all others.
"""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, BinaryIO
from weakref import WeakValueDictionary

import orjson
from bson import Binary
from cachetools import LRUCache

from models import InstanceDocument, SeriesHeadersDocument
from models.instance import INSTANCE_NUMBER_ORDER, instance_sort
from models.stored import stored_name
from services.database import translated_database_faults
from services.dicom.json_model import BULK_ROOT, KnownElements, header_json
from services.dicom.layout import WalkLimits
from services.errors import FileRejected, OrthancNotFound, PacsDisabled
from services.orthanc.answers import StoredFile
from services.orthanc.client import Orthanc
from services.query.gzip_pieces import Piece
from services.tasks import finish_in_thread, wait_for_all

_ORTHANC_SERIES_ID = stored_name(InstanceDocument.orthanc_series_id)
_HAS_BULK_DATA = stored_name(SeriesHeadersDocument.has_bulk_data)
_JSON_BYTES = stored_name(SeriesHeadersDocument.json_bytes)


_log = logging.getLogger(__name__)

_CHUNK_HEADERS = 64
_CHUNK_BYTES = 4 * 1024 * 1024
"""Size of JSON at which a chunk ends before it has 64 headers; a single header may be longer."""

_CHUNK_MAX_BYTES = 12 * 1024 * 1024
"""Largest compressed chunk that is stored: MongoDB's documents have up to 16 MiB. A larger chunk is
made again each time."""

_HELD_BYTES = 16 * 1024 * 1024
"""Compressed size of new chunks that are kept in memory for the response; others are read again."""

_RECENT_BYTES = 8 * 1024 * 1024
"""Size of the JSON of chunks that are cached for requests of single headers."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some headers of a series.

    Attributes:
        members: Begin and end of each header in the JSON, by Orthanc's id of the instance and its
            revision; equal if the file has no readable header.
        piece: JSON objects separated by commas, compressed.
        has_bulk_data: Whether it has addresses that begin with `BULK_ROOT`.
    """

    members: Mapping[tuple[str, str], tuple[int, int]]
    piece: Piece
    has_bulk_data: bool

    @property
    def is_empty(self) -> bool:
        """Whether no member has a readable header."""
        return self.piece.size == 0


class SeriesHeaders:
    """Makes, stores and returns the headers of series.

    Args:
        orthanc: Where the files are; None while PACS integration is off.
        limits: Of the walk over a file.
        max_seconds: Longest time that MongoDB may work on one command.
    """

    def __init__(self, orthanc: Orthanc | None, *, limits: WalkLimits, max_seconds: float) -> None:
        self._orthanc = orthanc
        self._limits = limits
        self._max_milliseconds = max(1, int(max_seconds * 1000))
        self._making: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._recent: LRUCache[str, tuple[bytes, Chunk]] = LRUCache(
            _RECENT_BYTES, getsizeof=lambda kept: 1024 + len(kept[0])
        )

    async def revisions(self, series_id: str) -> dict[str, str]:
        """Return the revision of each instance of a series, by Orthanc's id, in its order.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        with translated_database_faults():
            found = (
                InstanceDocument.get_pymongo_collection()
                .find(
                    {_ORTHANC_SERIES_ID: series_id},
                    ("revision",),
                    max_time_ms=self._max_milliseconds,
                )
                .sort(instance_sort(INSTANCE_NUMBER_ORDER))
            )
            return {document["_id"]: document["revision"] for document in await found.to_list()}

    async def chunks(self, series_id: str, revisions: Mapping[str, str]) -> AsyncIterator[Chunk]:
        """Yield the headers of a series, one chunk at a time; make those that are not stored.

        Args:
            series_id: Orthanc's id of the series.
            revisions: From `revisions`.

        Raises:
            PacsDisabled: They are not stored, and PACS integration is off.
            OrthancUnavailable: Orthanc does not answer.
            DatabaseUnavailable: MongoDB does not answer.
        """
        wanted = set(revisions.items())
        # Other requests for the same series wait, and then find the stored headers.
        async with self._making.setdefault(series_id, asyncio.Lock()):
            kept = await self._kept(series_id, wanted)
            missing = wanted - set(chain.from_iterable(kept.values()))
            made: dict[str, Chunk | None] = dict.fromkeys(kept)
            if missing:
                made |= await self._make(series_id, revisions, missing)
        for name, chunk in made.items():
            found = chunk or await self._read(name)
            if found is not None:
                yield found

    async def prepare(self, series_id: str) -> None:
        """Make the headers of a series that are not stored; raises as `chunks`."""
        async for _ in self.chunks(series_id, await self.revisions(series_id)):
            pass

    async def find(self, series_id: str, instance_id: str, revision: str) -> bytes | None:
        """Return the header of one instance as JSON, without making it.

        Returns:
            None if it is not stored, or if its file has no readable header.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        key = (instance_id, revision)
        found = self._recent_of(key)
        if found is None:
            async with self._making.setdefault(series_id, asyncio.Lock()):
                found = self._recent_of(key) or await self._read_around(series_id, key)
        if found is None:
            return None
        content, chunk = found
        begin, end = chunk.members[key]
        return content[begin:end] or None

    def _recent_of(self, key: tuple[str, str]) -> tuple[bytes, Chunk] | None:
        for name, (_, chunk) in self._recent.items():
            if key in chunk.members:
                return self._recent[name]
        return None

    async def _read_around(
        self, series_id: str, key: tuple[str, str]
    ) -> tuple[bytes, Chunk] | None:
        member = {"$elemMatch": {"id": key[0], "revision": key[1]}}
        with translated_database_faults():
            stored = await SeriesHeadersDocument.get_pymongo_collection().find_one(
                {_ORTHANC_SERIES_ID: series_id, "members": member},
                max_time_ms=self._max_milliseconds,
            )
        if stored is None:
            return None
        chunk = _chunk(stored)
        read = (await finish_in_thread(chunk.piece.content), chunk)
        if len(read[0]) < _RECENT_BYTES // 2:
            self._recent[stored["_id"]] = read
        return read

    async def _kept(
        self, series_id: str, wanted: set[tuple[str, str]]
    ) -> dict[str, list[tuple[str, str]]]:
        """Choose chunks whose members are all needed, none of them twice; remove the others."""
        collection = SeriesHeadersDocument.get_pymongo_collection()
        with translated_database_faults():
            stored = await collection.find(
                {_ORTHANC_SERIES_ID: series_id},
                {"members.id": 1, "members.revision": 1},
                max_time_ms=self._max_milliseconds,
            ).to_list()
        chosen: dict[str, list[tuple[str, str]]] = {}
        taken: set[tuple[str, str]] = set()
        useless = []
        for document in stored:
            members = [(member["id"], member["revision"]) for member in document["members"]]
            if wanted.issuperset(members) and taken.isdisjoint(members):
                chosen[document["_id"]] = members
                taken.update(members)
            else:
                useless.append(document["_id"])
        if useless:
            with translated_database_faults():
                await collection.delete_many({"_id": {"$in": useless}})
        return chosen

    async def _read(self, name: str) -> Chunk | None:
        """Read a chunk; None if another process has removed it."""
        with translated_database_faults():
            stored = await SeriesHeadersDocument.get_pymongo_collection().find_one(
                {"_id": name}, max_time_ms=self._max_milliseconds
            )
        return None if stored is None else _chunk(stored)

    async def _make(
        self, series_id: str, revisions: Mapping[str, str], missing: set[tuple[str, str]]
    ) -> dict[str, Chunk | None]:
        """Make headers and store them.

        Returns:
            The chunks by name; None for stored chunks that would take too much memory.
        """
        if self._orthanc is None:
            raise PacsDisabled
        ids = [one for one in revisions.items() if one in missing]
        known = KnownElements()
        made: dict[str, Chunk | None] = {}
        held_bytes = 0
        for start in range(0, len(ids), _CHUNK_HEADERS):
            part = ids[start : start + _CHUNK_HEADERS]
            headers = await self._headers(self._orthanc, part, known)
            for members in _cut(headers):
                chunk = await finish_in_thread(partial(_made, members))
                name = f"{series_id}/{_digest(chunk.members)}"
                is_kept = await self._keep(series_id, name, chunk)
                held_bytes += len(chunk.piece.body)
                made[name] = None if is_kept and held_bytes > _HELD_BYTES else chunk
        return made

    async def _headers(
        self,
        orthanc: Orthanc,
        instances: Sequence[tuple[str, str]],
        known: KnownElements,
    ) -> list[tuple[tuple[str, str], bytes]]:
        stored = {
            file.instance_id: file
            for file in await orthanc.client.stored_files(
                [instance_id for instance_id, _ in instances]
            )
        }

        async def read(instance: tuple[str, str]) -> bytes | None:
            file = stored.get(instance[0])
            # The instance was replaced or removed a moment ago.
            if file is None or file.revision != instance[1]:
                return None
            try:
                return await self._header(orthanc, file, known)
            except OrthancNotFound:
                return None

        headers = await wait_for_all(read(instance) for instance in instances)
        return [
            (instance, header)
            for instance, header in zip(instances, headers, strict=True)
            if header is not None
        ]

    async def _header(self, orthanc: Orthanc, file: StoredFile, known: KnownElements) -> bytes:
        try:
            return await orthanc.files.beginnings.read(file, partial(self._parse, known))
        except FileRejected as exc:
            _log.warning("header of %s can't be read: %s", file.instance_id, exc.code)
            return b""

    def _parse(self, known: KnownElements, file: BinaryIO, _: int | None) -> bytes:
        return header_bytes(header_json(file, self._limits, known=known))

    async def _keep(self, series_id: str, name: str, chunk: Chunk) -> bool:
        """Write a chunk; return whether it is stored now."""
        if len(chunk.piece.body) > _CHUNK_MAX_BYTES:
            return False
        ids = [instance_id for instance_id, _ in chunk.members]
        instances = InstanceDocument.get_pymongo_collection()
        collection = SeriesHeadersDocument.get_pymongo_collection()
        document = SeriesHeadersDocument.model_construct(
            id=name,
            orthanc_series_id=series_id,
            members=[],
            body=chunk.piece.body,
            json_bytes=chunk.piece.size,
            crc32=chunk.piece.crc32,
            has_bulk_data=chunk.has_bulk_data,
        ).model_dump(by_alias=True, exclude={"members", "body"})
        document["body"] = Binary(chunk.piece.body)
        document["members"] = [
            {"id": instance_id, "revision": revision, "begin": begin, "end": end}
            for (instance_id, revision), (begin, end) in chunk.members.items()
        ]
        with translated_database_faults():
            await collection.replace_one({"_id": name}, document, upsert=True)
            # If an instance was removed in between, its header must not stay in the store.
            if await instances.count_documents({"_id": {"$in": ids}}) < len(ids):
                await collection.delete_one({"_id": name})
                return False
        return True


def header_bytes(model: Mapping[str, Any]) -> bytes:
    """Encode a header as JSON; addresses of bulk data get the path of the instance.

    They still begin with `BULK_ROOT`, which is replaced by the address of the service as the client
    reaches it.
    """
    content = b"".join(_written(model))
    root = BULK_ROOT.encode()
    if root not in content:
        return content
    study, series, instance = (
        str(model.get(tag, {}).get("Value", [""])[0])
        for tag in ("0020000D", "0020000E", "00080018")
    )
    path = f"studies/{study}/series/{series}/instances/{instance}/bulkdata/"
    return content.replace(root, root + path.encode())


def _written(model: Mapping[str, Any]) -> Iterator[bytes]:
    """Encode elements in pieces, because orjson holds the interpreter lock during a call."""
    separator = b"{"
    for tag, element in model.items():
        items = element.get("Value", ())
        if element["vr"] != "SQ" or len(items) <= _WRITTEN_ITEMS:
            yield separator + orjson.dumps(tag) + b":" + orjson.dumps(element)
        else:
            yield separator + orjson.dumps(tag) + b':{"vr":"SQ","Value":['
            for start in range(0, len(items), _WRITTEN_ITEMS):
                part = orjson.dumps(items[start : start + _WRITTEN_ITEMS])[1:-1]
                yield (b"," if start else b"") + part
            yield b"]}"
        separator = b","
    yield b"}" if separator == b"," else b"{}"


_WRITTEN_ITEMS = 512
"""Items of a sequence in one call: about a megabyte of functional groups."""


def revisions_digest(series: Iterable[tuple[str, Mapping[str, str]]]) -> str:
    """Return a digest of some series that changes when an instance is added, removed or replaced.

    Args:
        series: Orthanc's id of each, and the revisions of its instances.
    """
    return _digest(chain.from_iterable([(name, ""), *held.items()] for name, held in series))


def _digest(instances: Iterable[tuple[str, str]]) -> str:
    text = "\n".join(f"{instance_id}/{revision}" for instance_id, revision in sorted(instances))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _cut(
    headers: Sequence[tuple[tuple[str, str], bytes]],
) -> list[list[tuple[tuple[str, str], bytes]]]:
    """Cut headers into chunks of limited size."""
    chunks: list[list[tuple[tuple[str, str], bytes]]] = []
    size = _CHUNK_BYTES
    for instance, header in headers:
        if size + len(header) > _CHUNK_BYTES:
            chunks.append([])
            size = 0
        chunks[-1].append((instance, header))
        size += len(header)
    return chunks


def _made(headers: Sequence[tuple[tuple[str, str], bytes]]) -> Chunk:
    members, position = {}, 0
    for instance, header in headers:
        members[instance] = (position, position + len(header))
        # A comma follows each header that is not empty.
        position += len(header) + bool(header)
    content = b",".join(header for _, header in headers if header)
    return Chunk(members, Piece.of(content), has_bulk_data=BULK_ROOT.encode() in content)


def _chunk(stored: Mapping[str, Any]) -> Chunk:
    return Chunk(
        {
            (member["id"], member["revision"]): (member["begin"], member["end"])
            for member in stored["members"]
        },
        Piece(bytes(stored["body"]), stored[_JSON_BYTES], stored["crc32"]),
        has_bulk_data=stored[_HAS_BULK_DATA],
    )
