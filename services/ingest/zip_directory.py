"""Look at the end of a ZIP file before `zipfile` reads its whole directory into memory."""

import struct
from typing import BinaryIO

from services.errors import FileRejected

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
"""Per member, on average: 46 bytes, a path, extra fields. Entries take ten times that in memory."""


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
    """Return the size of the directory as the Zip64 record says, 0 without one."""
    if end_offset < _LOCATOR.size + _END64.size:
        return 0
    file.seek(end_offset - _LOCATOR.size)
    magic, _, offset, _ = _LOCATOR.unpack(file.read(_LOCATOR.size))
    if magic != _LOCATOR_MAGIC:
        return 0
    # `zipfile` takes the record that stands right before the locator, whatever the offset says.
    del offset
    file.seek(end_offset - _LOCATOR.size - _END64.size)
    return int(_END64.unpack(file.read(_END64.size))[8])
