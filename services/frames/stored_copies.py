"""Temporary copies of Orthanc's files, for frames that Orthanc can't cut out of them."""

import asyncio
import os
import shutil
import tempfile
import weakref
from typing import BinaryIO
from weakref import WeakValueDictionary

from cachetools import TTLCache

from services.dicom.deflation import inflated_copy
from services.dicom.display import PixelDescription
from services.dicom.layout import FileLayout, WalkLimits
from services.dicom.parser import walk
from services.errors import FileRejected, FrameNotRenderable, OrthancTimedOut, RendererUnavailable
from services.frames.frame_places import ByteRange, FramePlaces
from services.frames.records import RenderableInstance
from services.orthanc.client import OrthancClient
from services.tasks import finish_in_thread

_KEPT_SECONDS = 60.0
"""About the time for which a cine is played and scrolled."""

_KEPT_BYTES = 2 * 1024**3
"""Disk for copies that are kept, in bytes; a larger file is copied for each of its frames."""

_WRITE_BYTES = 1024 * 1024


class StoredCopy:
    """A copy of one file, without a name; it is deleted with the last reference to it.

    It is never closed while a thread reads it: the thread holds a reference.

    Args:
        file: Its descriptor is duplicated; the caller closes the file.
        layout: Of the file.
    """

    def __init__(self, file: BinaryIO, layout: FileLayout) -> None:
        self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)
        self.size_bytes = layout.file_size
        self._places = FramePlaces(file, layout)

    def frame(
        self, description: PixelDescription, frame_index: int, frames: int
    ) -> tuple[bytes, int]:
        """Read the bytes of a frame; blocks.

        Returns:
            As `FramePlaces.find`, with the bytes joined.

        Raises:
            FrameNotRenderable: The file does not have the frame.
        """
        places, bit_offset = self._places.find(description, frame_index, frames)
        return b"".join(self._read(place) for place in places), bit_offset

    def _read(self, place: ByteRange) -> bytes:
        size = place.end - place.begin
        content = os.pread(self._descriptor, size, place.begin)
        if len(content) < size:
            raise FrameNotRenderable("Its pixel data ends before this frame does.")
        return content


class StoredCopies:
    """Copies files of Orthanc when they are needed, and keeps them for a minute.

    Args:
        orthanc: Where the files are.
        fetch_seconds: Longest time without data from Orthanc, in seconds.
    """

    def __init__(self, orthanc: OrthancClient, *, fetch_seconds: float) -> None:
        self._orthanc = orthanc
        self._fetch_seconds = fetch_seconds
        self._copies: TTLCache[tuple[str, str], StoredCopy] = TTLCache(
            _KEPT_BYTES, _KEPT_SECONDS, getsizeof=lambda copy: copy.size_bytes
        )
        self._fetching: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def frame(
        self, instance: RenderableInstance, description: PixelDescription, frame_index: int
    ) -> tuple[bytes, int]:
        """Return the bytes of a frame; see `StoredCopy.frame`.

        Raises:
            FrameNotRenderable: The frame is not in the file, or the file can't be read.
            OrthancNotFound: Orthanc does not have the file.
            OrthancUnavailable: Orthanc does not answer.
            RendererUnavailable: There is no disk space for the copy.
        """
        copy = await self._copy(instance)
        return await finish_in_thread(
            copy.frame, description, frame_index, instance.number_of_frames
        )

    async def _copy(self, instance: RenderableInstance) -> StoredCopy:
        key = (instance.id, instance.revision)
        # All frames of a cine are requested at once; one copy serves them.
        async with self._fetching.setdefault(key, asyncio.Lock()):
            copy = self._copies.get(key)
            if copy is None:
                copy = await self._fetch(instance.id)
                if copy.size_bytes <= _KEPT_BYTES:
                    self._copies[key] = copy
            return copy

    async def _fetch(self, instance_id: str) -> StoredCopy:
        try:
            with tempfile.TemporaryFile() as file:
                await self._write(instance_id, file)
                return await finish_in_thread(lambda: _read(file))
        except FileRejected as exc:
            raise FrameNotRenderable("Its file can't be read.", detail=exc.code) from exc
        except OSError as exc:
            raise RendererUnavailable(
                "There is no disk space for a copy of this file.", detail=str(exc.strerror)
            ) from exc

    async def _write(self, instance_id: str, file: BinaryIO) -> None:
        waiting = bytearray()
        async with self._orthanc.instance_file(instance_id) as chunks:
            iterator = aiter(chunks)
            while True:
                try:
                    async with asyncio.timeout(self._fetch_seconds):
                        chunk = await anext(iterator, None)
                except TimeoutError as exc:
                    raise OrthancTimedOut(detail="a file for its frames") from exc
                waiting += chunk or b""
                if waiting and (chunk is None or len(waiting) >= _WRITE_BYTES):
                    part, waiting = waiting, bytearray()
                    await finish_in_thread(lambda part=part: file.write(part))  # type: ignore[misc]  # bound at once
                if chunk is None:
                    return


def _read(file: BinaryIO) -> StoredCopy:
    """Find the pixel data, and inflate a deflated data set. Blocks."""
    file.flush()
    limits = WalkLimits()
    layout = walk(file, limits)
    if not layout.is_deflated:
        return StoredCopy(file, layout)
    with (
        inflated_copy(file, layout.dataset_offset, limits) as inflated,
        tempfile.TemporaryFile() as whole,
    ):
        inflated.seek(0)
        shutil.copyfileobj(inflated, whole)
        whole.flush()
        return StoredCopy(whole, layout)
