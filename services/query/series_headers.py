"""The store of headers: whole series in the DICOM JSON model, compressed, in MongoDB.

A header is made once for all processes: some seconds after its file was indexed, of what was read
for that; else of the file, when its study has become stable or when somebody asks for it. A series
has chunks of up to 64 headers, each a piece of a gzip file, so that its answer is put together
without compressing anything, and one header is read without reading all.
"""

import asyncio
import hashlib
import io
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
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
from services.dicom.json_model import BULK_ROOT, KnownElements, header_text
from services.dicom.layout import WalkLimits
from services.errors import DatabaseUnavailable, Error, FileRejected, OrthancNotFound, PacsDisabled
from services.orthanc.answers import StoredFile
from services.orthanc.client import Orthanc
from services.query.arrived_headers import ArrivedHeader, ArrivedHeaders
from services.query.gzip_pieces import Piece
from services.tasks import HANGING_SECONDS, finish_in_thread, heartbeat, wait_for_all

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

_READ_BYTES = 8 * 1024 * 1024
"""JSON of the chunks that are read at once: 600 headers of CT. Compressed, it is far less."""

_RECENT_BYTES = 8 * 1024 * 1024
"""Size of the JSON of chunks that are cached for requests of single headers."""

_QUIET_SECONDS = 1.5
"""A series is made when nothing came to it for so long: few chunks are better than many."""

_LOOK_SECONDS = 0.5

_Instance = tuple[str, str]
"""Orthanc's identifier of an instance, and its revision."""


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

    Attributes:
        arrived: What was indexed a moment ago.

    Args:
        orthanc: Where the files are; None while PACS integration is off.
        limits: Of the walk over a file.
        max_seconds: Longest time that MongoDB may work on one command.
    """

    def __init__(self, orthanc: Orthanc | None, *, limits: WalkLimits, max_seconds: float) -> None:
        self.arrived = ArrivedHeaders()
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
        """Yield the headers of a series, made where they are not kept; few chunks are in memory.

        Args:
            series_id: Orthanc's id of the series.
            revisions: From `revisions`.

        Raises:
            PacsDisabled: They are not stored, and PACS integration is off.
            OrthancUnavailable: Orthanc does not answer.
            DatabaseUnavailable: MongoDB does not answer.
        """
        chunks = await self._ensured(series_id, revisions)
        for chunk in chunks.values():
            if isinstance(chunk, Chunk):
                yield chunk
        sizes = {name: size for name, size in chunks.items() if isinstance(size, int)}
        for names in _grouped(sizes):
            for found in await self._read(names):
                yield found

    async def prepare(self, series_id: str) -> None:
        """Make the headers of a series that are not kept; errors are those of `chunks`."""
        await self._ensured(series_id, await self.revisions(series_id))

    async def _ensured(
        self, series_id: str, revisions: Mapping[str, str]
    ) -> dict[str, Chunk | int]:
        """Make what is not kept.

        Returns:
            The chunks by name; of those that are not in memory here, the bytes of their JSON.
        """
        wanted = set(revisions.items())
        # Others who ask for the same series wait, and find what is made for the first.
        async with self._making.setdefault(series_id, asyncio.Lock()):
            kept, there = await self._kept(series_id, wanted)
            missing = [one for one in revisions.items() if one not in there]
            return kept | await self._make(series_id, missing)

    async def run(self) -> None:
        """Make the headers of what arrives, until cancelled."""
        with heartbeat("headers of arrivals") as alive:
            while True:
                alive.stop()
                await self.arrived.wait()
                alive.beat(HANGING_SECONDS)
                await asyncio.sleep(_LOOK_SECONDS)
                for series_id in self.arrived.quiet(_QUIET_SECONDS):
                    try:
                        await self._make_arrived(series_id)
                    except DatabaseUnavailable as exc:
                        _log.warning("headers of arrivals wait for MongoDB: %s", exc.detail)
                        break
                    except Error as exc:
                        _log.warning("headers of series %s are not made: %s", series_id, exc.code)
                        self.arrived.discard(series_id)
                    except Exception:  # noqa: BLE001  # one must not keep all others waiting
                        _log.exception("headers of series %s are not made", series_id)
                        self.arrived.discard(series_id)

    async def _make_arrived(self, series_id: str) -> None:
        async with self._making.setdefault(series_id, asyncio.Lock()):
            revisions = await self.revisions(series_id)
            _, there = await self._kept(series_id, set(revisions.items()))
            await self._make(
                series_id,
                [
                    one
                    for one in revisions.items()
                    if one not in there and self.arrived.find(series_id, one) is not None
                ],
            )
        if series_id in self.arrived.quiet(_QUIET_SECONDS):
            self.arrived.discard(series_id)

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
        self, series_id: str, wanted: set[_Instance]
    ) -> tuple[dict[str, Chunk | int], set[_Instance]]:
        """Choose chunks all of whose members are wanted, none of them twice; remove the others.

        Returns:
            The bytes of their JSON by name, and all of their members.
        """
        collection = SeriesHeadersDocument.get_pymongo_collection()
        with translated_database_faults():
            stored = await collection.find(
                {_ORTHANC_SERIES_ID: series_id},
                {"members.id": 1, "members.revision": 1, _JSON_BYTES: 1},
                max_time_ms=self._max_milliseconds,
            ).to_list()
        chosen: dict[str, Chunk | int] = {}
        taken: set[_Instance] = set()
        useless = []
        for document in stored:
            members = [(member["id"], member["revision"]) for member in document["members"]]
            if wanted.issuperset(members) and taken.isdisjoint(members):
                chosen[document["_id"]] = document[_JSON_BYTES]
                taken.update(members)
            else:
                useless.append(document["_id"])
        if useless:
            with translated_database_faults():
                await collection.delete_many({"_id": {"$in": useless}})
        return chosen, taken

    async def _read(self, names: Sequence[str]) -> list[Chunk]:
        """Read chunks; those that another process has removed are left out."""
        with translated_database_faults():
            stored = await (
                SeriesHeadersDocument.get_pymongo_collection()
                .find({"_id": {"$in": names}}, max_time_ms=self._max_milliseconds)
                .to_list()
            )
        return [_chunk(one) for one in stored]

    async def _make(self, series_id: str, instances: Sequence[_Instance]) -> dict[str, Chunk | int]:
        """Make headers and keep them.

        Returns:
            The chunks by name; of those that are kept and would take too much memory here, the
            bytes of their JSON.
        """
        known = KnownElements()
        made: dict[str, Chunk | int] = {}
        held_bytes = 0
        for start in range(0, len(instances), _CHUNK_HEADERS):
            part = instances[start : start + _CHUNK_HEADERS]
            headers = await self._headers(series_id, part, known)
            for members in _cut(headers):
                chunk = await finish_in_thread(partial(_made, members))
                name = f"{series_id}/{_digest(chunk.members)}"
                is_kept = await self._keep(series_id, name, chunk)
                held_bytes += len(chunk.piece.body)
                made[name] = chunk.piece.size if is_kept and held_bytes > _HELD_BYTES else chunk
        return made

    async def _headers(
        self, series_id: str, instances: Sequence[_Instance], known: KnownElements
    ) -> list[tuple[_Instance, bytes]]:
        """Make headers, of those instances that are still there, in their order."""
        arrived = {
            one: header
            for one in instances
            if (header := self.arrived.find(series_id, one)) is not None
        }
        made = await finish_in_thread(self._made_of, arrived, known) if arrived else {}
        missing = [one for one in instances if one not in made]
        if missing:
            made |= await self._read_all(missing, known)
        return [(one, made[one]) for one in instances if one in made]

    def _made_of(
        self, arrived: Mapping[_Instance, ArrivedHeader], known: KnownElements
    ) -> dict[_Instance, bytes]:
        made = {}
        for instance, header in arrived.items():
            try:
                made[instance] = self._parse(
                    known, io.BytesIO(header.beginning), header.file_size_bytes
                )
            except FileRejected as exc:
                _log.warning("header of %s can't be read: %s", instance[0], exc.code)
                made[instance] = b""
        return made

    async def _read_all(
        self, instances: Sequence[_Instance], known: KnownElements
    ) -> dict[_Instance, bytes]:
        if self._orthanc is None:
            raise PacsDisabled
        orthanc = self._orthanc
        stored = {
            (file.instance_id, file.revision): file
            for file in await orthanc.client.stored_files([one for one, _ in instances])
        }

        async def read(instance: _Instance) -> bytes | None:
            file = stored.get(instance)
            # What was replaced or removed a moment ago is not what was asked for.
            if file is None:
                return None
            try:
                return await self._header(orthanc, file, known)
            except OrthancNotFound:
                return None

        headers = await wait_for_all(read(instance) for instance in instances)
        return {
            instance: header
            for instance, header in zip(instances, headers, strict=True)
            if header is not None
        }

    async def _header(self, orthanc: Orthanc, file: StoredFile, known: KnownElements) -> bytes:
        try:
            return await orthanc.files.beginnings.read(file, partial(self._parse, known))
        except FileRejected as exc:
            _log.warning("header of %s can't be read: %s", file.instance_id, exc.code)
            return b""

    def _parse(self, known: KnownElements, file: BinaryIO, file_size: int | None) -> bytes:
        return with_bulk_path(header_text(file, self._limits, known=known, file_size=file_size))

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


def with_bulk_path(content: bytes) -> bytes:
    """Give the addresses of bulk data in a header the path of the instance.

    They begin with `BULK_ROOT` still: the caller replaces that by the address under which
    the caller reaches the service.

    Args:
        content: What `header_text` returned.
    """
    root = BULK_ROOT.encode()
    if root not in content:
        return content
    model = orjson.loads(content)
    study, series, instance = (
        str(model.get(tag, {}).get("Value", [""])[0])
        for tag in ("0020000D", "0020000E", "00080018")
    )
    path = f"studies/{study}/series/{series}/instances/{instance}/bulkdata/"
    return content.replace(root, root + path.encode())


def revisions_digest(series: Iterable[tuple[str, Mapping[str, str]]]) -> str:
    """Return a digest of some series that changes when an instance is added, removed or replaced.

    Args:
        series: Orthanc's id of each, and the revisions of its instances.
    """
    return _digest(chain.from_iterable([(name, ""), *held.items()] for name, held in series))


def _digest(instances: Iterable[tuple[str, str]]) -> str:
    text = "\n".join(f"{instance_id}/{revision}" for instance_id, revision in sorted(instances))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _grouped(sizes: Mapping[str, int]) -> list[list[str]]:
    """Divide chunks into groups that are read at once, by the bytes of their JSON."""
    groups: list[list[str]] = []
    size = _READ_BYTES
    for name, bytes_ in sizes.items():
        if size + bytes_ > _READ_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += bytes_
    return groups


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
