"""The documents of MongoDB as files, of one moment, and back.

The files are those of `mongodump --gzip`: BSON documents one after another.
"""

import gzip
import hashlib
from collections.abc import Container, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

from bson import CodecOptions, decode_file_iter
from bson.errors import InvalidBSON
from bson.raw_bson import RawBSONDocument
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError

from models import LeaseDocument
from services.backup.catalogue import BackupFailed, DumpedCollection
from services.database import translated_database_faults
from services.files import make_private_folder
from services.tasks import finish_in_thread

_LEFT_OUT = frozenset({LeaseDocument.Settings.name, "system.profile"})
"""Who follows Orthanc now says nothing about a restored server."""

_SUFFIX = ".bson.gz"
_WRITE_ERRORS = ("writeErrors", "writeConcernErrors")
_BATCH_BYTES = 4 * 1024 * 1024
_BATCH_DOCUMENTS = 1000
_COMPRESSION = 1
"""A third of the size at a tenth of the time of the default."""

_RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument, tz_aware=True)


async def dump_database(
    database: AsyncDatabase[dict[str, Any]], folder: Path, *, only: Container[str] | None = None
) -> dict[str, DumpedCollection]:
    """Write collections as they are at one moment.

    A MongoDB that is no replica set has no such moment: its collections are of the moments in
    which they are read, and the comparison with Orthanc repairs what differs.

    Args:
        database: What to write.
        folder: For the files; those that are there are replaced.
        only: Names of collections; None: all.

    Raises:
        DatabaseUnavailable: MongoDB does not answer.
        OSError: The disk is full.
    """
    await finish_in_thread(make_private_folder, folder)
    raw = _raw(database)
    with translated_database_faults():
        hello = await database.client.admin.command("hello")
        has_snapshots = "setName" in hello or hello.get("msg") == "isdbgrid"
        names = sorted(set(await database.list_collection_names()) - _LEFT_OUT)
        if only is not None:
            names = [name for name in names if name in only]
        async with database.client.start_session(snapshot=has_snapshots) as session:
            return {name: await _dump(raw, name, folder, session) for name in names}


async def _dump(
    database: AsyncDatabase[RawBSONDocument],
    name: str,
    folder: Path,
    session: AsyncClientSession,
) -> DumpedCollection:
    path = folder / f"{name}{_SUFFIX}"
    documents = 0
    batch: list[bytes] = []
    batch_bytes = 0
    file = await finish_in_thread(_create, path)
    try:
        async for document in database[name].find({}, session=session):
            batch.append(bytes(document.raw))
            batch_bytes += len(document.raw)
            documents += 1
            if batch_bytes >= _BATCH_BYTES:
                await finish_in_thread(file.write, b"".join(batch))
                batch, batch_bytes = [], 0
        await finish_in_thread(file.write, b"".join(batch))
    finally:
        await finish_in_thread(file.close)
    size, sha256 = await finish_in_thread(size_and_sha256, path)
    return DumpedCollection(documents=documents, size=size, sha256=sha256)


def _raw(database: AsyncDatabase[dict[str, Any]]) -> AsyncDatabase[RawBSONDocument]:
    """Return the database as one whose documents are bytes that nobody decodes."""
    opened: Any = database.client.get_database(database.name, codec_options=_RAW)
    raw: AsyncDatabase[RawBSONDocument] = opened
    return raw


def _create(path: Path) -> gzip.GzipFile:
    return gzip.open(path, "wb", compresslevel=_COMPRESSION)


def size_and_sha256(path: Path) -> tuple[int, str]:
    """Return the size of a file in bytes, and its SHA-256 in hex; blocks."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), digest


async def load_database(
    database: AsyncDatabase[dict[str, Any]], folder: Path, dumped: dict[str, DumpedCollection]
) -> None:
    """Insert what `dump_database` wrote into an empty database.

    Raises:
        BackupFailed: The database is not empty, or a file is damaged.
        DatabaseUnavailable: MongoDB does not answer.
    """
    raw = _raw(database)
    for name, collection in dumped.items():
        with translated_database_faults():
            if await database[name].find_one({}, {"_id": 1}) is not None:
                raise BackupFailed(
                    f"The database {database.name} is not empty. Restore into a new one."
                )
            documents = 0
            reading = _read(folder / f"{name}{_SUFFIX}")
            try:
                while batch := await finish_in_thread(_take, reading):
                    await raw[name].insert_many(batch, ordered=False)
                    documents += len(batch)
            except BulkWriteError as exc:
                # Its message would quote documents.
                errors = (exc.details.get(kind, ()) for kind in _WRITE_ERRORS)
                codes = {error.get("code") for some in errors for error in some}
                raise BackupFailed(
                    f"The documents of {name} can't be restored: MongoDB answers codes {codes}."
                ) from None
            finally:
                await finish_in_thread(reading.close)
        if documents != collection.documents:
            raise BackupFailed(f"The file of {name} in the backup is damaged.")


def count_documents(path: Path) -> int:
    """Read a whole file and return the number of its documents; blocks.

    Raises:
        BackupFailed: It is damaged.
    """
    return sum(1 for _ in _read(path))


def dump_path(folder: Path, name: str) -> Path:
    """Return the file of a collection."""
    return folder / f"{name}{_SUFFIX}"


def _take(reading: Iterator[RawBSONDocument]) -> list[RawBSONDocument]:
    taken: list[RawBSONDocument] = []
    size = 0
    for document in islice(reading, _BATCH_DOCUMENTS):
        taken.append(document)
        size += len(document.raw)
        if size >= _BATCH_BYTES:
            break
    return taken


def _read(path: Path) -> Any:  # noqa: ANN401  # a generator, closed by its user
    try:
        with gzip.open(path, "rb") as file:
            yield from decode_file_iter(cast("IO[bytes]", file), codec_options=_RAW)
    except (EOFError, gzip.BadGzipFile, InvalidBSON, FileNotFoundError) as exc:
        raise BackupFailed(f"The file {path.name} of the backup is missing or damaged.") from exc
