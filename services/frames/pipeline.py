"""One frame: its bytes from Orthanc, and its picture made of them.

Orthanc gives bytes and decodes nothing: native frames are shown in the thread that fetched them,
encoded ones in a renderer process.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
from cachetools import TTLCache

from services.dicom.display import PixelDescription, ValueType
from services.dicom.layout import EXPLICIT_VR_LITTLE_ENDIAN
from services.dicom.pixel_support import format_fault
from services.errors import (
    FrameNotFound,
    FrameNotRenderable,
    OrthancAuthenticationFailed,
    OrthancError,
    OrthancNotFound,
    OrthancOutcomeUnknown,
    OrthancTimedOut,
    OrthancUnavailable,
)
from services.frames.cache import RenderedFrame
from services.frames.encapsulation import is_complete
from services.frames.frame_places import only_frame
from services.frames.queue import ParseOnceGate, RenderQueue
from services.frames.records import (
    FrameAttributes,
    Presentation,
    PresentationLoader,
    RenderableInstance,
)
from services.frames.renderer import RendererPool
from services.frames.rendering import RenderRequest, render_frame
from services.frames.stored_copies import StoredCopies
from services.frames.variant import FrameVariant
from services.observability.metrics import FRAME_SECONDS, timed
from services.orthanc.frames import OrthancFrames
from services.tasks import finish_in_thread

_BYTE_BITS = 8

_T = TypeVar("_T")

_Use = Callable[[bytes, PixelDescription, int], _T]
"""Makes something of the bytes of a frame, with how they are stored and the bits at their beginning
that belong to the frame before."""

_RAW = "raw"
"""`GET /instances/{id}/frames/{n}/raw`: the bytes of a frame as they are in the file."""

_UNCUT = 4096
"""Instances whose frames are not asked of Orthanc, by identifier and revision."""

_UNCUT_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class StoredFrame:
    """The bytes of one frame, encapsulation removed and fragments joined.

    Attributes:
        transfer_syntax_uid: How they are encoded; Explicit VR Little Endian for all native ones.
    """

    content: bytes
    transfer_syntax_uid: str


class FramePipeline:
    """Renders frames.

    Args:
        frames: Orthanc's route of frames; native ones are shown in its threads.
        copies: Whole files, for frames that Orthanc can't cut out.
        presentations: Finds how frames are stored and shown.
        renderers: Decodes and shows encoded frames.
        slots: Native frames at once.
        encoded_slots: Encoded frames at once.
        queue_size: Frames that may wait, of both kinds each.
        max_pixels: Largest frame, rows times columns.
    """

    def __init__(
        self,
        frames: OrthancFrames,
        copies: StoredCopies,
        presentations: PresentationLoader,
        renderers: RendererPool,
        *,
        slots: int,
        encoded_slots: int,
        queue_size: int,
        max_pixels: int,
    ) -> None:
        self._frames = frames
        self._copies = copies
        self._presentations = presentations
        self._renderers = renderers
        self._max_pixels = max_pixels
        self._parsed = ParseOnceGate(queue_size)
        # Apart: frames that hang a renderer must not keep native ones waiting.
        self._native_queue = RenderQueue(slots, queue_size)
        self._encoded_queue = RenderQueue(encoded_slots, queue_size)
        self._uncut: TTLCache[tuple[str, str], bool] = TTLCache(_UNCUT, _UNCUT_SECONDS)

    @property
    def is_idle(self) -> bool:
        """Whether no frame waits and there is room for more: time to look ahead."""
        return self._native_queue.is_idle and self._encoded_queue.is_idle

    @property
    def waiting(self) -> int:
        """How many frames wait to be rendered."""
        return self._native_queue.waiting + self._encoded_queue.waiting

    async def attributes(self, instance: RenderableInstance, frame_index: int) -> FrameAttributes:
        """Return windows and geometry of a frame, 0-based."""
        return await self._presentations.attributes(instance, frame_index)

    async def presentation(self, instance: RenderableInstance, frame_index: int) -> Presentation:
        """Return how a frame, 0-based, is stored and shown."""
        return await self._presentations.find(instance, frame_index)

    async def stored(self, instance: RenderableInstance, frame_index: int) -> StoredFrame:
        """Return the bytes of a frame, 0-based, as they are in the file; native ones little endian.

        Raises:
            FrameNotFound: Orthanc has no such frame.
            FrameNotRenderable: It can't be cut out of the file.
            RenderQueueFull: Too many frames wait.
            OrthancUnavailable: Orthanc does not answer.
        """
        return await self._fetched(instance, frame_index, is_decoded=False)

    async def decoded(self, instance: RenderableInstance, frame_index: int) -> StoredFrame:
        """Return the samples of a frame, 0-based, as Explicit VR Little Endian stores them.

        Errors are those of `render`.
        """
        return await self._fetched(instance, frame_index, is_decoded=True)

    async def _fetched(
        self, instance: RenderableInstance, frame_index: int, *, is_decoded: bool
    ) -> StoredFrame:
        check_pixels(instance.rows or 0, instance.columns or 0, max_pixels=self._max_pixels)
        try:
            async with self._parsed.first_before_others(instance):
                presentation = await self._presentations.find(instance, frame_index)
                description = presentation.description
                if description.is_native:
                    async with self._native_queue.slot(instance.id):
                        content = await self._native_bytes(instance, frame_index, description)
                    return StoredFrame(content, EXPLICIT_VR_LITTLE_ENDIAN)
                async with self._encoded_queue.slot(instance.id):
                    content = await self._encoded_bytes(instance, frame_index, description)
                    if not is_decoded:
                        return StoredFrame(content, description.transfer_syntax_uid)
                    request = _request(content, presentation, FrameVariant())
                    samples = await self._renderers.render(replace(request, as_samples=True))
                return StoredFrame(samples, EXPLICIT_VR_LITTLE_ENDIAN)
        except OrthancNotFound as exc:
            raise FrameNotFound from exc

    async def _native_bytes(
        self, instance: RenderableInstance, frame_index: int, description: PixelDescription
    ) -> bytes:
        sent = await self._sent(instance, frame_index, description, little_endian)
        if sent is not None:
            return sent
        content, bit_offset = await self._copies.frame(instance, description, frame_index)
        return await finish_in_thread(little_endian, content, description, bit_offset)

    async def _encoded_bytes(
        self, instance: RenderableInstance, frame_index: int, description: PixelDescription
    ) -> bytes:
        sent = await self._sent(instance, frame_index, description, _unchanged)
        # Orthanc believes an offset table whose entries are those of fragments, right or wrong.
        if sent is not None and (instance.number_of_frames == 1 or is_complete(sent)):
            return sent
        content, _ = await self._copies.frame(instance, description, frame_index)
        return content

    async def render(
        self, instance: RenderableInstance, frame_index: int, variant: FrameVariant
    ) -> RenderedFrame:
        """Render a frame.

        Args:
            instance: The instance.
            frame_index: 0-based within it.
            variant: How to show it.

        Raises:
            FrameNotFound: Orthanc has no such frame.
            FrameNotRenderable: It can't be shown, with the reason.
            RenderQueueFull: Too many frames wait.
            RendererCrashed: It ended its renderer.
            RendererUnavailable: The renderers can't be reached.
            OrthancUnavailable: Orthanc does not answer.
        """
        check_pixels(instance.rows or 0, instance.columns or 0, max_pixels=self._max_pixels)
        try:
            async with self._parsed.first_before_others(instance):
                presentation = await self._presentations.find(instance, frame_index)
                fault = format_fault(presentation.description)
                if fault is not None:
                    raise FrameNotRenderable(fault)
                if presentation.description.is_native:
                    async with self._native_queue.slot(instance.id):
                        return await self._native(instance, frame_index, presentation, variant)
                async with self._encoded_queue.slot(instance.id):
                    return await self._encoded(instance, frame_index, presentation, variant)
        except OrthancNotFound as exc:
            raise FrameNotFound from exc

    async def _native(
        self,
        instance: RenderableInstance,
        frame_index: int,
        presentation: Presentation,
        variant: FrameVariant,
    ) -> RenderedFrame:
        def show(content: bytes, description: PixelDescription, bit_offset: int) -> RenderedFrame:
            as_sent = replace(presentation, description=description)
            return _rendered(_request(content, as_sent, variant, bit_offset=bit_offset))

        description = presentation.description
        shown = await self._sent(instance, frame_index, description, show)
        if shown is not None:
            return shown
        content, bit_offset = await self._copies.frame(instance, description, frame_index)
        return await finish_in_thread(show, content, description, bit_offset)

    async def _encoded(
        self,
        instance: RenderableInstance,
        frame_index: int,
        presentation: Presentation,
        variant: FrameVariant,
    ) -> RenderedFrame:
        description, renderers = presentation.description, self._renderers
        content = await self._encoded_bytes(instance, frame_index, description)
        try:
            picture = await renderers.render(_request(content, presentation, variant))
        except FrameNotRenderable:
            if instance.number_of_frames == 1:
                raise
            content, _ = await self._copies.frame(instance, description, frame_index)
            picture = await renderers.render(_request(content, presentation, variant))
        return RenderedFrame.of(picture)

    async def _sent(
        self,
        instance: RenderableInstance,
        frame_index: int,
        description: PixelDescription,
        use: _Use[_T],
    ) -> _T | None:
        """Use the bytes of a frame in the thread that fetched them.

        The only frame of a file is cut out here: Orthanc sends a file without parsing it, in a
        third of the time that it takes to find the frame.

        Returns:
            None where neither works: the file has to be copied.
        """
        if _is_sent_whole(instance, description):
            size = instance.file_size_bytes
            whole = partial(_use_only_frame, size=size, description=description, use=use)
            used = await self._frames.file(instance.id, whole)
            if used is not None:
                return used
        if description.is_native and not _is_cut_by_orthanc(description):
            return None
        return await self._raw(
            instance, frame_index, partial(_use_cut, description=description, use=use)
        )

    async def _raw(
        self, instance: RenderableInstance, frame_index: int, use: Callable[[bytes], _T]
    ) -> _T | None:
        """Use the bytes of a frame as Orthanc cuts it; None where Orthanc can't or must not."""
        key = (instance.id, instance.revision)
        if key in self._uncut:
            return None
        try:
            return await self._frames.get(instance.id, frame_index, _RAW, use)
        except OrthancTimedOut:
            raise
        except OrthancOutcomeUnknown:
            # It may have died of parsing this file: sending the file as it is parses nothing.
            self._uncut[key] = True
            raise
        except (OrthancNotFound, OrthancUnavailable, OrthancAuthenticationFailed):
            raise
        except OrthancError:
            self._uncut[key] = True
            return None


def little_endian(content: bytes, description: PixelDescription, bit_offset: int) -> bytes:
    """Return the bytes of one native frame, little endian, from its first bit to its last.

    Args:
        content: What `StoredCopies.frame` returned.
        description: How the instance stores its frames.
        bit_offset: Bits at the beginning that belong to the frame before.
    """
    if description.is_byte_swapped:
        content = np.frombuffer(content, ">u2", len(content) // 2).astype("<u2").tobytes()
    elif description.is_big_endian and description.bits_allocated > _BYTE_BITS:
        size = description.bits_allocated // _BYTE_BITS
        content = np.frombuffer(content, f">u{size}").astype(f"<u{size}").tobytes()
    bits = description.frame_bits
    if bit_offset % _BYTE_BITS == 0:
        begin = bit_offset // _BYTE_BITS
        whole = content[begin : begin - (-bits // _BYTE_BITS)]
        if bits % _BYTE_BITS == 0:
            return whole
    # The first pixel is the lowest bit (PS3.5 8.2.1).
    unpacked = np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")
    return np.packbits(unpacked[bit_offset : bit_offset + bits], bitorder="little").tobytes()


def _is_cut_by_orthanc(description: PixelDescription) -> bool:
    """Return whether Orthanc finds native frames: whole bytes, and in PixelData.

    Of big-endian files it swaps the bytes of each 16-bit word, whatever the size of the samples.
    """
    is_whole = description.frame_bits % _BYTE_BITS == 0
    is_integer = description.value_type is ValueType.INTEGER
    return is_integer and is_whole and not description.is_big_endian


_HEADER_BYTES = 1024 * 1024
"""Besides its frame, of a native file that is sent whole."""

_ENCODED_BYTES = 16 * 1024 * 1024
"""Of an encoded file that is sent whole: its frame is most of it, or it is small."""


def _is_sent_whole(instance: RenderableInstance, description: PixelDescription) -> bool:
    if instance.number_of_frames != 1:
        return False
    if description.is_native:
        return instance.file_size_bytes * _BYTE_BITS - description.frame_bits <= (
            _HEADER_BYTES * _BYTE_BITS
        )
    return instance.file_size_bytes <= _ENCODED_BYTES


def _use_only_frame(
    content: bytes, *, size: int, description: PixelDescription, use: _Use[_T]
) -> _T | None:
    if len(content) != size:
        # Orthanc has another file already, and the index does not know it yet.
        raise FrameNotFound
    frame = only_frame(content, description)
    return None if frame is None else use(frame[0], description, frame[1])


def _use_cut(content: bytes, *, description: PixelDescription, use: _Use[_T]) -> _T:
    """Use what Orthanc cut: native frames are little endian then."""
    if not description.is_native:
        return use(content, description, 0)
    if len(content) * _BYTE_BITS != description.frame_bits:
        raise OrthancError(detail="a frame of another size than its instance says")
    return use(content, replace(description, transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN), 0)


def _unchanged(content: bytes, _: PixelDescription, __: int) -> bytes:
    return content


def _request(
    content: bytes, presentation: Presentation, variant: FrameVariant, *, bit_offset: int = 0
) -> RenderRequest:
    return RenderRequest(
        content,
        presentation.description,
        presentation.display,
        variant,
        bit_offset,
    )


def _rendered(request: RenderRequest) -> RenderedFrame:
    with timed(FRAME_SECONDS, "render"):
        return RenderedFrame.of(render_frame(request))


def check_pixels(rows: int, columns: int, *, max_pixels: int) -> None:
    """Refuse frames that are too large to decode.

    Raises:
        FrameNotRenderable: Rows times columns exceed the limit.
    """
    if rows * columns > max_pixels:
        raise FrameNotRenderable(
            f"This frame has {rows} x {columns} pixels; {max_pixels} are the limit."
        )
