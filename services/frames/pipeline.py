"""One frame: its bytes from Orthanc, and its picture made of them."""

from dataclasses import dataclass
from functools import partial

from zlib_ng import zlib_ng

from services.dicom.pixel_support import format_fault
from services.errors import (
    FrameNotFound,
    FrameNotRenderable,
    OrthancAuthenticationFailed,
    OrthancError,
    OrthancNotFound,
    OrthancUnavailable,
)
from services.frames.records import Presentation, PresentationLoader, RenderableInstance
from services.frames.rendering import RenderRequest, Source, render_frame
from services.frames.variant import FrameVariant
from services.orthanc.frames import OrthancFrames

_SOURCES = (("raw", Source.STORED), ("numpy?rescale=false", Source.DECODED))
"""Routes of Orthanc and what they give, the first choice first."""

_NO_ANSWER = (OrthancNotFound, OrthancUnavailable, OrthancAuthenticationFailed)
"""Errors that Orthanc's other routes would give as well."""


@dataclass(frozen=True, slots=True)
class RenderedFrame:
    """A picture: the bytes of a PNG or JPEG file and their strong entity tag with its quotes."""

    content: bytes
    etag: str

    @classmethod
    def of(cls, content: bytes) -> "RenderedFrame":
        """Tag a picture by its content.

        A tag is compared with those of the same frame only, and nobody gains by two that are
        alike: two checksums and the length do, in a tenth of the time of a digest.
        """
        checksums = f"{zlib_ng.crc32(content):08x}{zlib_ng.adler32(content):08x}"
        return cls(content, f'"{checksums}{len(content):08x}"')


class FrameRenderer:
    """Renders frames.

    Args:
        frames: Orthanc's frames; the arithmetic runs in their threads.
        displays: Finds what turns stored values into grey levels.
        max_pixels: Largest frame, rows times columns.
    """

    def __init__(
        self, frames: OrthancFrames, displays: PresentationLoader, *, max_pixels: int
    ) -> None:
        self._frames = frames
        self._displays = displays
        self._max_pixels = max_pixels

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
            FrameNotRenderable: It can't be shown.
            OrthancUnavailable: Orthanc does not answer.
        """
        check_pixels(instance.rows or 0, instance.columns or 0, max_pixels=self._max_pixels)
        try:
            presentation = await self._displays.find(instance, frame_index)
            fault = format_fault(presentation.description)
            if fault is not None:
                raise FrameNotRenderable(fault)
            return await self._rendered(instance, frame_index, presentation, variant)
        except OrthancNotFound as exc:
            raise FrameNotFound from exc

    async def _rendered(
        self,
        instance: RenderableInstance,
        frame_index: int,
        presentation: Presentation,
        variant: FrameVariant,
    ) -> RenderedFrame:
        reason: OrthancError | None = None
        for route, source in _SOURCES:
            show = partial(_shown, source=source, presentation=presentation, variant=variant)
            try:
                return await self._frames.get(instance.id, frame_index, route, show)
            except _NO_ANSWER:
                raise
            except OrthancError as exc:
                reason = exc
        raise FrameNotRenderable("Orthanc can't read the pixels of this frame.") from reason


def check_pixels(rows: int, columns: int, *, max_pixels: int) -> None:
    """Refuse frames that are too large to decode.

    Raises:
        FrameNotRenderable: Rows times columns exceed the limit, or are nothing.
    """
    if rows * columns > max_pixels:
        raise FrameNotRenderable(
            f"This frame has {rows} x {columns} pixels; {max_pixels} are the limit."
        )


def _shown(
    content: bytes, *, source: Source, presentation: Presentation, variant: FrameVariant
) -> RenderedFrame:
    request = RenderRequest(
        content, source, presentation.description, presentation.display, variant
    )
    return RenderedFrame.of(render_frame(request))
