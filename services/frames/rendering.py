"""One frame to one PNG: Orthanc's decoded pixels where it gives them, else its own picture."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from services.errors import (
    FrameNotFound,
    FrameNotRenderable,
    OrthancAuthenticationFailed,
    OrthancError,
    OrthancNotFound,
    OrthancUnavailable,
)
from services.frames.displays import DisplayCatalogue
from services.frames.instances import RenderableInstance
from services.frames.pixels import (
    RenderedFrame,
    check_pixels,
    encode_png,
    picture,
    read_npy,
    refit_png,
)
from services.frames.variant import FrameVariant
from services.orthanc.client import OrthancClient

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RenderLimits:
    """How much a frame may cost.

    Attributes:
        max_pixels: Largest frame, rows times columns.
        decode_seconds: Longest wait for Orthanc, in seconds.
    """

    max_pixels: int = 64_000_000
    decode_seconds: float = 10


class FrameRenderer:
    """Renders frames; the arithmetic runs in the threads of `executor`."""

    def __init__(
        self, orthanc: OrthancClient, executor: ThreadPoolExecutor, limits: RenderLimits
    ) -> None:
        self._orthanc = orthanc
        self._executor = executor
        self._limits = limits
        self._displays = DisplayCatalogue(orthanc)

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
            OrthancUnavailable: Orthanc does not answer.
        """
        max_pixels = self._limits.max_pixels
        check_pixels(instance.rows or 0, instance.columns or 0, max_pixels=max_pixels)
        try:
            display = await self._displays.find(instance, frame_index)
            npy = await self._orthanc.frame_numpy(
                instance.id, frame_index, timeout_seconds=self._limits.decode_seconds
            )
        except OrthancNotFound as exc:
            raise FrameNotFound from exc
        except (OrthancUnavailable, OrthancAuthenticationFailed):
            raise
        except OrthancError:
            return await self._orthanc_picture(instance.id, frame_index, variant)

        def shown() -> RenderedFrame:
            stored = read_npy(npy, max_pixels=max_pixels)
            bits = instance.bits_stored
            return RenderedFrame.of(encode_png(picture(stored, display, variant, bits_stored=bits)))

        return await self._in_thread(shown)

    async def _orthanc_picture(
        self, instance_id: str, frame_index: int, variant: FrameVariant
    ) -> RenderedFrame:
        """Take the PNG of one of Orthanc's two routes; which first depends on the variant."""
        reason: OrthancError | None = None
        for route in orthanc_routes(variant):
            try:
                png = await self._orthanc.frame_png(
                    instance_id, frame_index, route, timeout_seconds=self._limits.decode_seconds
                )
            except OrthancNotFound as exc:
                raise FrameNotFound from exc
            except (OrthancUnavailable, OrthancAuthenticationFailed):
                raise
            except OrthancError as exc:
                reason = exc
                continue
            return await self._in_thread(
                partial(_refitted, png, variant.max_size, self._limits.max_pixels)
            )
        raise FrameNotRenderable("Orthanc can't decode the pixels of this frame.") from reason

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)


def _refitted(png: bytes, max_size: int | None, max_pixels: int) -> RenderedFrame:
    return RenderedFrame.of(refit_png(png, max_size, max_pixels=max_pixels))


def orthanc_routes(variant: FrameVariant) -> tuple[str, str]:
    """Return Orthanc's picture routes in the order to try: the closest to the variant first."""
    if variant.full_range:
        return "preview", "rendered"
    if variant.window_center is None or variant.window_width is None:
        return "rendered", "preview"
    window = f"window-center={variant.window_center!r}&window-width={variant.window_width!r}"
    return f"rendered?{window}", "preview"
