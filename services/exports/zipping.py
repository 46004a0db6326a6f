"""A ZIP archive that is sent while it is made: nothing of it is on a disk."""

import zipfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""Date of every member: the dates of examinations are patient data."""


@dataclass(frozen=True, slots=True)
class ZipMember:
    """A file of an archive.

    Attributes:
        name: Its path.
        opened: Opens its content.
    """

    name: str
    opened: AbstractAsyncContextManager[AsyncIterator[bytes]]


class _Sink:
    """Takes what is written, for its reader to fetch; can't be sought in."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._chunks.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Do nothing: there is no buffer."""

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def take(self) -> bytes:
        taken = b"".join(self._chunks)
        self._chunks.clear()
        return taken


async def zipped(members: AsyncIterator[ZipMember]) -> AsyncGenerator[bytes, None]:
    """Pack members as they are, with ZIP64 where it is needed.

    They are not compressed: most files of today's archives are already, and the others would cost
    the processor more than the network.

    Args:
        members: Opened one after the other.
    """
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        async for member in members:
            info = zipfile.ZipInfo(member.name, _EPOCH)
            with archive.open(info, "w", force_zip64=True) as target:
                async with member.opened as chunks:
                    async for chunk in chunks:
                        target.write(chunk)
                        yield sink.take()
            yield sink.take()
    yield sink.take()
