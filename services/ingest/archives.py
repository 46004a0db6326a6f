"""ZIP archives, unpacked member by member, within limits that are checked while reading.

Names of members are used only as labels: no file is written under them. Directories, DICOMDIR
(PS3.10 8.6), `__MACOSX` and the thumbnails of file managers are skipped without a result. Every
other member gets a result.
"""

import asyncio
import errno
import io
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import PurePosixPath
from typing import IO, BinaryIO, cast

from services.errors import FileRejected
from services.tasks import finish_in_thread


class UploadPermits:
    """Limits how many files of one call, and of all calls of its caller, go to Orthanc at once.

    Args:
        shares: The semaphores that each file acquires, the narrowest first.
    """

    def __init__(self, *shares: asyncio.Semaphore) -> None:
        self._shares = shares

    async def acquire(self) -> None:
        """Wait for one permit of each semaphore."""
        taken: list[asyncio.Semaphore] = []
        try:
            for share in self._shares:
                await share.acquire()
                taken.append(share)
        except BaseException:
            for share in taken:
                share.release()
            raise

    def release(self) -> None:
        """Release the permits."""
        for share in self._shares:
            share.release()


class UploadSlot:
    """An open file with its permits; `aclose` closes and releases both, and may be repeated."""

    def __init__(
        self, name: str, file: BinaryIO, permits: UploadPermits, *, is_on_disk: bool
    ) -> None:
        self.name = name
        self.file = file
        self._permits = permits
        self._is_on_disk = is_on_disk
        self._is_closed = False

    async def aclose(self) -> None:
        """Close the file and release its permits."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            await close_file(self.file, is_on_disk=self._is_on_disk)
        finally:
            self._permits.release()


async def acquire_slot(
    name: str, file: BinaryIO, permits: UploadPermits, *, is_on_disk: bool
) -> UploadSlot:
    """Wait until an open file may go to Orthanc; closes it when the caller is cancelled."""
    try:
        await permits.acquire()
    except BaseException:
        await close_file(file, is_on_disk=is_on_disk)
        raise
    return UploadSlot(name, file, permits, is_on_disk=is_on_disk)


async def close_file(file: BinaryIO, *, is_on_disk: bool) -> None:
    """Close a file; in a thread if it is on disk, because freeing its bytes blocks."""
    if not is_on_disk:
        file.close()
        return
    await finish_in_thread(file.close)


_END = struct.Struct("<4s4H2LH")
"""End of central directory record (APPNOTE.TXT 4.3.16)."""
_END_MAGIC = b"PK\x05\x06"
_LOCATOR = struct.Struct("<4sLQL")
"""Zip64 end of central directory locator (4.3.15)."""
_LOCATOR_MAGIC = b"PK\x06\x07"
_END64 = struct.Struct("<4sQ2H2L4Q")
"""Zip64 end of central directory record (4.3.14)."""
_COMMENT_MAX_BYTES = 65_535
_ENTRY_MAX_BYTES = 512
"""Average size of an entry: 46 bytes, a path, extra fields. In memory it takes ten times that."""


def check_directory(file: BinaryIO, *, max_members: int) -> None:
    """Refuse an archive whose directory is larger than its members can need.

    Raises:
        FileRejected: DAMAGED_ARCHIVE or ARCHIVE_TOO_LARGE.
    """
    size = file.seek(0, 2)
    start = max(0, size - _COMMENT_MAX_BYTES - _END.size)
    file.seek(start)
    tail = file.read()
    position = tail.rfind(_END_MAGIC)
    if position < 0 or len(tail) - position < _END.size:
        raise FileRejected("DAMAGED_ARCHIVE", "The archive is damaged or was cut off.")
    _, _, _, _, _, directory_bytes, _, _ = _END.unpack_from(tail, position)
    directory_bytes = max(directory_bytes % 0xFFFFFFFF, _zip64_bytes(file, start + position))
    if directory_bytes > max_members * _ENTRY_MAX_BYTES:
        raise FileRejected("ARCHIVE_TOO_LARGE", f"The archive has more than {max_members} members.")


def _zip64_bytes(file: BinaryIO, end_offset: int) -> int:
    """Return the size of the directory according to the Zip64 record; 0 without one."""
    if end_offset < _LOCATOR.size + _END64.size:
        return 0
    file.seek(end_offset - _LOCATOR.size)
    magic, *_ = _LOCATOR.unpack(file.read(_LOCATOR.size))
    if magic != _LOCATOR_MAGIC:
        return 0
    # As `zipfile`: the record is read from directly before the locator, not from its offset.
    file.seek(end_offset - _LOCATOR.size - _END64.size)
    return int(_END64.unpack(file.read(_END64.size))[8])


_CHUNK_BYTES = 1024 * 1024
"""Size of a read. Members that are not larger stay in memory, one per file that is being stored."""

_RATIO_COUNTS_FROM_BYTES = 16 * 1024 * 1024
"""The ratio is not checked below this size: an empty mask of 512x512 is highly compressed."""

_ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
_DICM_OFFSET = 128
_ENCRYPTED = 0x1
_LOCAL_HEADER_BYTES = 30
"""Without name and extra field (APPNOTE.TXT 4.3.7)."""
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""Other methods need much memory, and `zipfile` reports damage in them as an error of the disk."""
_DAMAGED_MEMBER = "This member of the archive is damaged."
_SKIPPED = frozenset({"dicomdir", ".ds_store", "thumbs.db", "desktop.ini"})
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    struct.error,
)
"""The exceptions that `zipfile` raises for damaged or unsupported archives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveLimits:
    """Limits of an archive.

    Attributes:
        max_members: Members including directories, of all archives of one call together.
        max_bytes: Total size of the unpacked members, in bytes.
        max_ratio: Unpacked size divided by packed size, of each member.
    """

    max_members: int = 10_000
    max_bytes: int = 20 * 1024**3
    max_ratio: int = 100


@dataclass(frozen=True, slots=True)
class Member:
    """One member.

    Attributes:
        content: A temporary file that the receiver closes, or why the member can't be unpacked.
        is_on_disk: Closing the content blocks while the disk frees its bytes.
        siblings: How many other members of its archive are unpacked.
    """

    name: str
    content: BinaryIO | FileRejected
    is_on_disk: bool = False
    siblings: int = 0


def is_added_by_computers(name: str) -> bool:
    """Return whether file managers or CDs add files with this name (PS3.10 8.6: DICOMDIR)."""
    return name.lower() in _SKIPPED or name.startswith("._")


def is_archive(file: BinaryIO) -> bool:
    """Return whether a file is a ZIP archive by its content, and not DICOM with a ZIP preamble."""
    file.seek(0)
    head = file.read(_DICM_OFFSET + 4)
    return head.startswith(_ZIP_MAGICS) and head[_DICM_OFFSET:] != b"DICM"


def members(file: BinaryIO, limits: ArchiveLimits) -> Generator[Member, None, None]:
    """Unpack an archive, one member at a time. Blocking: call `next` in a thread.

    Raises:
        FileRejected: The archive is rejected: DAMAGED_ARCHIVE, EMPTY_ARCHIVE, ARCHIVE_TOO_LARGE.
            Members that were yielded before are valid.
    """
    check_directory(file, max_members=limits.max_members)
    try:
        archive = zipfile.ZipFile(file)
    except _DAMAGE as exc:
        raise _damaged() from exc
    except OSError as exc:
        if _is_damage(exc):
            raise _damaged() from exc
        raise
    with archive:
        infos = _wanted(archive, limits)
        remaining = limits.max_bytes
        for info in infos:
            member = _unpack(archive, info, limits, remaining)
            if not isinstance(member.content, FileRejected):
                remaining -= member.content.seek(0, io.SEEK_END)
                member.content.seek(0)
            yield replace(member, siblings=len(infos) - 1)


def _wanted(archive: zipfile.ZipFile, limits: ArchiveLimits) -> list[zipfile.ZipInfo]:
    infos = archive.infolist()
    if len(infos) > limits.max_members:
        raise _too_large(f"more than {limits.max_members} members")
    _check_overlaps(infos, archive.start_dir)
    wanted = [info for info in infos if not _is_skipped(info)]
    if not wanted:
        raise FileRejected("EMPTY_ARCHIVE", "The archive has no files in it.")
    return wanted


def _check_overlaps(infos: list[zipfile.ZipInfo], directory_offset: int) -> None:
    """Refuse members that share bytes; CPython before 3.11.8 unpacks such bytes many times."""
    ordered = sorted(infos, key=lambda info: info.header_offset)
    ends = [*(info.header_offset for info in ordered), directory_offset][1:]
    if ordered and ordered[0].header_offset < 0:
        # `zipfile` shifts all offsets if the directory is not at the position in the end record.
        raise _damaged()
    for info, limit in zip(ordered, ends, strict=True):
        # The local header repeats the name; the length of its extra field is not known here.
        name_bytes = len(info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437"))
        least = _LOCAL_HEADER_BYTES + name_bytes + info.compress_size
        if info.header_offset + least > limit:
            raise FileRejected("DAMAGED_ARCHIVE", "Members of the archive overlap.")


def _is_skipped(info: zipfile.ZipInfo) -> bool:
    path = PurePosixPath(info.filename)
    # Not `is_dir`, which fails on a member without a name.
    return (
        info.filename.endswith("/") or is_added_by_computers(path.name) or "__MACOSX" in path.parts
    )


def _unpack(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, limits: ArchiveLimits, remaining: int
) -> Member:
    """Unpack one member; an error that concerns only this member becomes its content."""
    if info.flag_bits & _ENCRYPTED:
        return Member(info.filename, FileRejected("ENCRYPTED", "This member is encrypted."))
    if info.compress_type not in _METHODS:
        message = (
            "This member is compressed by a method other than Deflate; pack it again with Deflate."
        )
        return Member(info.filename, FileRejected("DAMAGED_ARCHIVE", message))
    if stat.S_ISLNK(info.external_attr >> 16):
        message = "This member is a link, not a file."
        return Member(info.filename, FileRejected("NOT_DICOM", message))
    try:
        with archive.open(info) as source:
            chunks = _chunks(source, info, limits, remaining)
            first, second = next(chunks, b""), next(chunks, b"")
            if not second:
                return Member(info.filename, io.BytesIO(first))
            whole = chain((first, second), chunks)
            return Member(info.filename, _kept_on_disk(whole), is_on_disk=True)
    except _DAMAGE:
        fault = FileRejected("DAMAGED_ARCHIVE", _DAMAGED_MEMBER)
    except OSError as exc:
        if not _is_damage(exc):
            raise
        fault = FileRejected("DAMAGED_ARCHIVE", _DAMAGED_MEMBER)
    except _MemberRefused as exc:
        fault = exc.fault
    return Member(info.filename, fault)


def _is_damage(exc: OSError) -> bool:
    """Return whether an offset in the archive is outside the file, rather than the disk failed."""
    return exc.errno == errno.EINVAL


class _MemberRefused(Exception):  # becomes the content of the member
    def __init__(self, fault: FileRejected) -> None:
        super().__init__()
        self.fault = fault


def _chunks(
    source: IO[bytes], info: zipfile.ZipInfo, limits: ArchiveLimits, remaining: int
) -> Iterator[bytes]:
    """Read a member; `zipfile` checks its checksum after the last chunk."""
    most = max(info.compress_size * limits.max_ratio, _RATIO_COUNTS_FROM_BYTES)
    size = 0
    while chunk := source.read(_CHUNK_BYTES):
        if size == 0 and chunk.startswith(_ZIP_MAGICS) and chunk[128:132] != b"DICM":
            message = "Archives inside archives are not unpacked."
            raise _MemberRefused(FileRejected("NESTED_ARCHIVE", message))
        size += len(chunk)
        if size > most:
            message = "This member is compressed too highly."
            raise _MemberRefused(FileRejected("ARCHIVE_TOO_LARGE", message))
        if size > remaining:
            raise _too_large(f"more than {limits.max_bytes} bytes unpacked")
        yield chunk


def _kept_on_disk(chunks: Iterable[bytes]) -> BinaryIO:
    file = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115  # the receiver closes it
    try:
        file.writelines(chunks)
    except BaseException:
        file.close()
        raise
    return file


def _too_large(what: str) -> FileRejected:
    return FileRejected("ARCHIVE_TOO_LARGE", f"The archive has {what}.")


def _damaged() -> FileRejected:
    return FileRejected("DAMAGED_ARCHIVE", "The archive is damaged or was cut off.")
