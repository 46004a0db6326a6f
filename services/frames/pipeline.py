"""One frame: its bytes from Orthanc, and its picture made of them.

Orthanc gives bytes and decodes nothing: native frames are shown in the thread that fetched them,
encoded ones in a renderer process.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

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
from services.orthanc.frames import OrthancFrames
from services.tasks import finish_in_thread

_BYTE_BITS = 8

_T = TypeVar("_T")

_RAW = "raw"
"""`GET /instances/{id}/frames/{n}/raw`: the bytes of a frame as they are in the file."""

_UNCUT = 4096
"""Instances whose frames are not asked of Orthanc, by identifier and revision."""

_UNCUT_SECONDS = 3600.0


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

    async def attributes(self, instance: RenderableInstance, frame_index: int) -> FrameAttributes:
        """Return windows and geometry of a frame, 0-based."""
        return await self._presentations.attributes(instance, frame_index)

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
        description = presentation.description
        if _is_cut_by_orthanc(description):
            as_sent = replace(description, transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN)
            show = partial(
                _show_native,
                presentation=replace(presentation, description=as_sent),
                variant=variant,
            )
            shown = await self._raw(instance, frame_index, show)
            if shown is not None:
                return shown
        content, bit_offset = await self._copies.frame(instance, description, frame_index)
        request = _request(content, presentation, variant, bit_offset=bit_offset)
        return await finish_in_thread(_rendered, request)

    async def _encoded(
        self,
        instance: RenderableInstance,
        frame_index: int,
        presentation: Presentation,
        variant: FrameVariant,
    ) -> RenderedFrame:
        description, renderers = presentation.description, self._renderers
        sent = await self._raw(instance, frame_index, bytes)
        # Orthanc believes an offset table whose entries are those of fragments, right or wrong.
        if sent is not None and (instance.number_of_frames == 1 or is_complete(sent)):
            try:
                picture = await renderers.render(_request(sent, presentation, variant))
                return RenderedFrame.of(picture)
            except FrameNotRenderable:
                if instance.number_of_frames == 1:
                    raise
        content, _ = await self._copies.frame(instance, description, frame_index)
        return RenderedFrame.of(await renderers.render(_request(content, presentation, variant)))

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


def _is_cut_by_orthanc(description: PixelDescription) -> bool:
    """Return whether Orthanc finds native frames: whole bytes, and in PixelData.

    Of big-endian files it swaps the bytes of each 16-bit word, whatever the size of the samples.
    """
    is_whole = description.frame_bits % _BYTE_BITS == 0
    is_integer = description.value_type is ValueType.INTEGER
    return is_integer and is_whole and not description.is_big_endian


def _show_native(
    content: bytes, *, presentation: Presentation, variant: FrameVariant
) -> RenderedFrame:
    if len(content) * _BYTE_BITS != presentation.description.frame_bits:
        raise OrthancError(detail="a frame of another size than its instance says")
    return _rendered(_request(content, presentation, variant))


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
