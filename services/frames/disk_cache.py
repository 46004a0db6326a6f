"""Rendered frames on disk, behind those in memory: what a restart leaves warm."""

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial

from services.frames.cache import FrameKey
from services.frames.pixels import RenderedFrame
from services.frames.records import RenderableInstance
from services.frames.rendering_version import rendering_version
from services.frames.sealed_folder import SealedFolder

_log = logging.getLogger(__name__)

_READERS = 2
"""A read takes 0.2 ms of a thread: two keep up with any number that encode PNGs."""

_WAITING_BYTES = 32 * 1024 * 1024
"""Memory for pictures that wait for a slow disk, in bytes; what comes on top is not kept."""


class DiskCache:
    """Keeps pictures in a folder; for one event loop, which it never blocks.

    A disk that fails, such as a full one, switches it off until the next start.

    Args:
        folder: Where the pictures are.
        version: Of what renders: pictures of another version are not found.
        readers: Threads that read.
        writer: One thread that writes and removes, in the order in which it is asked.
    """

    def __init__(
        self, folder: SealedFolder, version: str, *, readers: Executor, writer: Executor
    ) -> None:
        self._folder = folder
        self._version = version
        self._readers = readers
        self._writer = writer
        self._waiting_bytes = 0
        self._is_on = True

    async def find(self, instance: RenderableInstance, key: FrameKey) -> RenderedFrame | None:
        """Return a picture that was made of the same, None when there is none."""
        if not self._is_on:
            return None
        read = partial(self._read, instance.id, self._name(instance, key))
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, read)
        except OSError as exc:
            self._turn_off(exc)
            return None

    def keep(self, instance: RenderableInstance, key: FrameKey, frame: RenderedFrame) -> None:
        """Write a picture in the background."""
        size_bytes = len(frame.png)
        if not self._is_on or self._waiting_bytes + size_bytes > _WAITING_BYTES:
            return
        self._waiting_bytes += size_bytes
        write = partial(self._folder.write, instance.id, self._name(instance, key), frame.png)
        writing = asyncio.get_running_loop().run_in_executor(self._writer, write)
        writing.add_done_callback(partial(self._note_written, size_bytes))

    def discard(self, instance_ids: Iterable[str]) -> None:
        """Remove the pictures of instances in the background, and what is being written of them."""
        self._remove({self._folder.hash_owner(instance_id) for instance_id in instance_ids})

    async def discard_all_but(self, instance_ids: AsyncIterable[str]) -> None:
        """Remove what was left of instances that were deleted while nobody told this process.

        Args:
            instance_ids: All that there are; whoever is indexed later keeps its pictures.
        """
        loop = asyncio.get_running_loop()
        try:
            orphans = await loop.run_in_executor(self._writer, self._folder.owners)
        except OSError as exc:
            self._turn_off(exc)
            return
        if not orphans:
            return
        async for instance_id in instance_ids:
            orphans.discard(self._folder.hash_owner(instance_id))
        self._remove(orphans)

    def _remove(self, owner_hashes: set[str]) -> None:
        remove = partial(self._folder.remove, owner_hashes)
        asyncio.get_running_loop().run_in_executor(self._writer, remove).add_done_callback(
            _note_removed
        )

    def _read(self, instance_id: str, name: str) -> RenderedFrame | None:
        png = self._folder.read(instance_id, name)
        return None if png is None else RenderedFrame.of(png)

    def _name(self, instance: RenderableInstance, key: FrameKey) -> str:
        """Spell all that a picture is made of: it outlives what the index said then."""
        return repr(
            (
                self._version,
                key.revision,
                key.frame_index,
                key.variant.text,
                instance.rows,
                instance.columns,
                instance.transfer_syntax_uid,
                instance.samples_per_pixel,
                instance.bits_allocated,
                instance.bits_stored,
                instance.pixel_representation,
                instance.photometric_interpretation,
                instance.window_center,
                instance.window_width,
                instance.voi_lut_function,
                instance.rescale_slope,
                instance.rescale_intercept,
                instance.has_complex_display,
            )
        )

    def _note_written(self, size_bytes: int, writing: "asyncio.Future[None]") -> None:
        self._waiting_bytes -= size_bytes
        try:
            writing.result()
        except OSError as exc:
            self._turn_off(exc)

    def _turn_off(self, exc: OSError) -> None:
        if self._is_on:
            self._is_on = False
            _log.warning("frames are not kept on disk until the next start: %s", exc.strerror)


def _note_removed(removing: "asyncio.Future[None]") -> None:
    try:
        removing.result()
    except OSError as exc:
        _log.warning("frames of removed instances stay on disk: %s", exc.strerror)


@asynccontextmanager
async def open_disk_cache(folder: SealedFolder) -> AsyncIterator[DiskCache]:
    """Run the threads of a disk cache; what waits is written at the end.

    Args:
        folder: Where the pictures are.
    """
    readers = ThreadPoolExecutor(_READERS, thread_name_prefix="frames on disk")
    writer = ThreadPoolExecutor(1, thread_name_prefix="frames to disk")
    version = await asyncio.to_thread(rendering_version)
    try:
        yield DiskCache(folder, version, readers=readers, writer=writer)
    finally:
        await asyncio.to_thread(readers.shutdown)
        await asyncio.to_thread(writer.shutdown)
