"""The beginning of a stored file: its header, without the pixel data that follows.

Orthanc's routes that tell a header as text (`/tags`, `/instances-tags`) parse the file: they lose
letters of some character sets, and files with deeply nested sequences stop Orthanc there. Sending
the bytes of a file parses nothing. Orthanc 1.10 ignores `Range`, so the file is asked for whole,
and the connection is closed as soon as the header is here: a file of 1 GiB costs this process its
header, and Orthanc one read of the file.
"""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import BinaryIO, cast

from services.orthanc.answers import StoredFile
from services.orthanc.client import OrthancClient
from services.tasks import finish_in_thread

_MEMORY_BYTES = 1024 * 1024
"""Longer beginnings wait on the disk."""

PIXEL_DATA_BYTES = 256 * 1024
"""Of the pixel data: its head, a basic offset table, and the header of the first codestream."""

WHOLE_FILE_BYTES = 1024 * 1024
"""Files up to this size are read whole: a connection that is kept costs less than the bytes."""


@asynccontextmanager
async def read_beginning(
    orthanc: OrthancClient, stored: StoredFile, *, pixel_data_bytes: int = 0
) -> AsyncIterator[tuple[BinaryIO, int | None]]:
    """Read a stored file up to its pixel data; whole where Orthanc does not tell where that is.

    Args:
        orthanc: Where the file is.
        stored: What Orthanc tells about it (`POST /tools/bulk-content`).
        pixel_data_bytes: How much of the pixel data element to read as well.

    Yields:
        The file or its beginning, and the size of the whole file in bytes when it is only the
        beginning.

    Raises:
        OrthancNotFound: The instance is gone.
        OrthancUnavailable: Orthanc does not answer.
    """
    size = stored.file_size_bytes
    wanted = size
    if stored.pixel_data_offset is not None and size > WHOLE_FILE_BYTES:
        wanted = min(size, stored.pixel_data_offset + pixel_data_bytes)
    with tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES) as file:
        left = wanted
        async with orthanc.instance_file(stored.instance_id) as chunks:
            async for chunk in chunks:
                await _write(file, chunk[:left])
                left -= len(chunk)
                if left <= 0 < size - wanted:
                    break
        # typeshed does not know that it has all that BinaryIO asks for.
        yield cast("BinaryIO", file), size if wanted < size else None


async def _write(file: "tempfile.SpooledTemporaryFile[bytes]", chunk: bytes) -> None:
    """Write to memory at once, to the disk in a thread."""
    if file.tell() + len(chunk) <= _MEMORY_BYTES:
        file.write(chunk)
    else:
        await finish_in_thread(partial(file.write, chunk))
