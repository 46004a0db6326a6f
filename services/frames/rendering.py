"""One frame to one PNG: Orthanc's decoded pixels where it gives them, else its own picture."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial

import cv2
import numpy as np

from services.dicom.display import Display, Grey, Stored
from services.errors import (
    FrameNotFound,
    FrameNotRenderable,
    OrthancAuthenticationFailed,
    OrthancError,
    OrthancNotFound,
    OrthancUnavailable,
)
from services.frames.pixels import (
    RenderedFrame,
    check_codestream,
    check_pixels,
    picture,
    raw_layout,
    read_npy,
    refit_png,
)
from services.frames.png import encode_png
from services.frames.records import PresentationLoader, RenderableInstance
from services.frames.variant import FrameVariant, PictureFormat
from services.orthanc.frames import OrthancFrames

_JPEG_QUALITY = 90
_DECODED = "numpy?rescale=false"
_AS_STORED = "raw"

_Reader = Callable[[bytes], Stored]

_UNDECODED = 4_096
"""Instances whose pixels Orthanc does not give, kept so that it is not asked for each frame."""

_NO_PICTURE_EITHER = (OrthancNotFound, OrthancUnavailable, OrthancAuthenticationFailed)
"""Errors that Orthanc's other routes would give as well."""


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
        self._undecoded: OrderedDict[tuple[str, str], None] = OrderedDict()

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
            FrameNotRenderable: Neither way gives a picture.
            FrameQuarantined: It is of a kind that stopped Orthanc.
            OrthancUnavailable: Orthanc does not answer.
        """
        check_pixels(instance.rows or 0, instance.columns or 0, max_pixels=self._max_pixels)
        try:
            await check_codestream(self._frames, instance, frame_index)
            return await self._from_pixels(instance, frame_index, variant) or (
                await self._from_picture(instance, frame_index, variant)
            )
        except OrthancNotFound as exc:
            raise FrameNotFound from exc

    async def _from_pixels(
        self, instance: RenderableInstance, frame_index: int, variant: FrameVariant
    ) -> RenderedFrame | None:
        """Render what Orthanc decodes; None when it gives no pixels of this instance."""
        if (instance.id, instance.revision) in self._undecoded:
            return None
        display = await self._displays.find(instance, frame_index)
        show = partial(_shown, display=display, variant=variant, bits_stored=instance.bits_stored)
        for route, read in self._values(instance):
            try:
                return await self._frames.get(
                    instance.id, frame_index, route, partial(show, read=read)
                )
            except _NO_PICTURE_EITHER:
                raise
            except OrthancError:
                continue
        return None

    def _values(self, instance: RenderableInstance) -> Iterator[tuple[str, _Reader]]:
        """Tell where the values of a frame are and how they are read, the quickest way first."""
        layout = raw_layout(instance)
        if layout is not None:
            yield _AS_STORED, layout.read
        yield _DECODED, partial(read_npy, max_pixels=self._max_pixels)

    async def _from_picture(
        self, instance: RenderableInstance, frame_index: int, variant: FrameVariant
    ) -> RenderedFrame:
        """Take the PNG of one of Orthanc's two routes; which first depends on the variant."""
        reason: OrthancError | None = None
        refit = partial(_refitted, variant=variant, max_pixels=self._max_pixels)
        for route in orthanc_routes(variant, has_window=_has_window(instance)):
            try:
                shown = await self._frames.get(instance.id, frame_index, route, refit)
            except _NO_PICTURE_EITHER:
                raise
            except OrthancError as exc:
                reason = exc
                continue
            # Only now: an Orthanc that gives neither may have had a bad moment.
            self._note_undecoded(instance)
            return shown
        raise FrameNotRenderable("Orthanc can't decode the pixels of this frame.") from reason

    def _note_undecoded(self, instance: RenderableInstance) -> None:
        self._undecoded[instance.id, instance.revision] = None
        while len(self._undecoded) > _UNDECODED:
            self._undecoded.popitem(last=False)


def _shown(
    content: bytes,
    *,
    read: _Reader,
    display: Display,
    variant: FrameVariant,
    bits_stored: int | None,
) -> RenderedFrame:
    stored = read(content)
    shown = picture(stored, display, variant, bits_stored=bits_stored)
    return RenderedFrame.of(_encoded(shown, variant.picture_format))


def _encoded(shown: Grey, picture_format: PictureFormat) -> bytes:
    if picture_format is PictureFormat.PNG:
        return encode_png(shown)
    _, content = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return content.tobytes()


def _refitted(png: bytes, *, variant: FrameVariant, max_pixels: int) -> RenderedFrame:
    refitted = refit_png(png, variant.max_size, max_pixels=max_pixels)
    if variant.picture_format is PictureFormat.PNG:
        return RenderedFrame.of(refitted)
    shown = cv2.imdecode(np.frombuffer(refitted, np.uint8), cv2.IMREAD_ANYCOLOR)
    return RenderedFrame.of(_encoded(np.asarray(shown, np.uint8), variant.picture_format))


def _has_window(instance: RenderableInstance) -> bool:
    return instance.window_center is not None or instance.has_complex_display


def orthanc_routes(variant: FrameVariant, *, has_window: bool) -> tuple[str, str]:
    """Return Orthanc's picture routes in the order to try: the closest to the variant first.

    Args:
        variant: What is wanted.
        has_window: The file has a window of its own; without one `rendered` may be black.
    """
    if variant.full_range:
        return "preview", "rendered"
    if variant.window_center is None or variant.window_width is None:
        return ("rendered", "preview") if has_window else ("preview", "rendered")
    window = f"window-center={variant.window_center!r}&window-width={variant.window_width!r}"
    return f"rendered?{window}", "preview"
