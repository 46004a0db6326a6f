"""From Orthanc's array of stored values to the bytes of a PNG; pure functions on numpy arrays."""

import io
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from zlib_ng import zlib_ng

from services.dicom.display import (
    Display,
    Grey,
    Stored,
    VoiFunction,
    Window,
    render_full_range,
    render_window,
)
from services.dicom.frame_count import JPEG2000_SYNTAXES, read_size
from services.errors import (
    FrameNotRenderable,
    FrameQuarantined,
    OrthancAuthenticationFailed,
    OrthancError,
    OrthancNotFound,
    OrthancUnavailable,
)
from services.frames.png import PNG_SIGNATURE, encode_png
from services.frames.records import RenderableInstance
from services.frames.variant import FrameVariant
from services.orthanc.frames import OrthancFrames

_COMPRESSED = "raw"

_MESSAGE = (
    "This frame is quarantined: its JPEG 2000 image does not have the Rows and Columns of the "
    "instance, and decoding such a frame stopped Orthanc."
)

_NO_ANSWER = (OrthancNotFound, OrthancUnavailable, OrthancAuthenticationFailed)


async def check_codestream(
    frames: OrthancFrames, instance: RenderableInstance, frame_index: int
) -> None:
    """Refuse a JPEG 2000 frame whose own size is not that of its instance.

    Uploads are checked before they are stored; what modalities send is not. The compressed frame
    is fetched undecoded (`GET /instances/{id}/frames/{n}/raw`), in 1 to 3 ms.

    Args:
        frames: Orthanc's frames.
        instance: The instance; other transfer syntaxes cost nothing.
        frame_index: 0-based.

    Raises:
        FrameQuarantined: The sizes differ, or nothing can be read of the frame's own.
        OrthancNotFound: Orthanc has no such frame.
        OrthancUnavailable: Orthanc does not answer.
    """
    if instance.transfer_syntax_uid not in JPEG2000_SYNTAXES:
        return
    try:
        size = await frames.get(instance.id, frame_index, _COMPRESSED, read_size)
    except _NO_ANSWER:
        raise
    except OrthancError as exc:
        raise FrameQuarantined(_MESSAGE, detail=exc.detail) from exc
    if size is None or (size.rows, size.columns) != (instance.rows, instance.columns):
        raise FrameQuarantined(_MESSAGE)


_LITTLE_ENDIAN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
"""Implicit and Explicit VR Little Endian (PS3.5 A.1 and A.2)."""

_GREY = ("MONOCHROME1", "MONOCHROME2")

_TYPES = {(8, 0): "u1", (16, 0): "<u2", (16, 1): "<i2"}
"""Types by BitsAllocated and PixelRepresentation: those that Orthanc decodes."""


@dataclass(frozen=True, slots=True)
class RawLayout:
    """How the values of a frame lie in `GET /instances/{id}/frames/{n}/raw`."""

    rows: int
    columns: int
    dtype: np.dtype[Any]

    def read(self, content: bytes) -> Stored:
        """Return the values of a frame, rows x columns, without copying them.

        Raises:
            OrthancError: The size is not that of the frame.
        """
        if len(content) != self.rows * self.columns * self.dtype.itemsize:
            raise OrthancError(detail="a frame of another size than its instance says")
        values: Stored = np.frombuffer(content, self.dtype).reshape(self.rows, self.columns)
        return values


def raw_layout(instance: RenderableInstance) -> RawLayout | None:
    """Return how the values of an instance lie in its file; None when they are to be decoded.

    Grey values that fill their words (BitsStored is BitsAllocated, PS3.5 8.1.1): others may have
    anything beside them, and the index does not hold HighBit.
    """
    kind = _TYPES.get((instance.bits_allocated or 0, instance.pixel_representation or 0))
    if (
        kind is None
        or not instance.rows
        or not instance.columns
        or instance.bits_stored != instance.bits_allocated
        or instance.samples_per_pixel != 1
        or instance.photometric_interpretation not in _GREY
        or instance.transfer_syntax_uid not in _LITTLE_ENDIAN
    ):
        return None
    return RawLayout(instance.rows, instance.columns, np.dtype(kind))


_RGB_SAMPLES = 3
_HEADERS = 64
"""Headers of arrays that are kept parsed, one for each size and type of frames: parsing one takes
longer than windowing a frame does."""


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


def read_npy(npy: bytes, *, max_pixels: int) -> Stored:
    """Read an `.npy` file without copying its values and without unpickling anything.

    Args:
        npy: Orthanc's answer to `GET /instances/{id}/frames/{n}/numpy`: rows x columns x samples.
        max_pixels: Most pixels, rows times columns.

    Returns:
        Rows x columns for one sample per pixel, else rows x columns x 3.

    Raises:
        FrameNotRenderable: It has another shape, another type, or too many pixels.
    """
    length_end = 10 if npy[6:7] == b"\x01" else 12
    start = length_end + int.from_bytes(npy[8:length_end], "little")
    try:
        shape, is_fortran, dtype = _read_header(npy[:start])
        if is_fortran or dtype.kind not in "iuf":
            raise FrameNotRenderable(detail=f"array of {dtype}")
        check_pixels(*shape[:2], max_pixels=max_pixels)
        values: Stored = np.frombuffer(npy, dtype=dtype, offset=start).reshape(shape)
    except (ValueError, TypeError) as exc:
        raise FrameNotRenderable(detail=f"not a readable array: {exc}") from exc
    if values.ndim == _RGB_SAMPLES and values.shape[2] == 1:
        return values[:, :, 0]
    return values


@lru_cache(maxsize=_HEADERS)
def _read_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    stream = io.BytesIO(header)
    version = np.lib.format.read_magic(stream)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    return read(stream)


def check_pixels(rows: int, columns: int, *, max_pixels: int) -> None:
    """Refuse frames that are too large to decode.

    Raises:
        FrameNotRenderable: Rows times columns exceed the limit, or are nothing.
    """
    if rows * columns > max_pixels:
        raise FrameNotRenderable(
            f"This frame has {rows} x {columns} pixels; {max_pixels} are the limit."
        )


def picture(
    stored: Stored, display: Display, variant: FrameVariant, *, bits_stored: int | None
) -> Grey:
    """Turn stored values into a picture.

    Args:
        stored: Rows x columns (grey) or rows x columns x 3 (RGB as Orthanc converts it).
        display: The display attributes of the frame.
        variant: How to show it.
        bits_stored: BitsStored; None means all bits of the type.

    Returns:
        Rows x columns, or rows x columns x 3 in OpenCV's order (blue first).
    """
    if stored.ndim == _RGB_SAMPLES:
        shown = _colour(stored, bits_stored)
    else:
        shown = _grey(np.ascontiguousarray(stored), display, variant)
    return fitted(shown, variant.max_size)


def _grey(stored: Stored, display: Display, variant: FrameVariant) -> Grey:
    window = _explicit_window(variant, display)
    if variant.full_range or (window is None and not display.has_voi):
        return render_full_range(stored, is_inverted=display.is_inverted)
    return render_window(stored, display, window)


def _explicit_window(variant: FrameVariant, display: Display) -> Window | None:
    if variant.window_center is None or variant.window_width is None:
        return None
    # The file's function shapes the caller's window too (PS3.3 C.11.2.1.3).
    function = display.window.function if display.window else VoiFunction.LINEAR
    return Window(variant.window_center, variant.window_width, function)


def _colour(stored: Stored, bits_stored: int | None) -> Grey:
    values = np.ascontiguousarray(stored)
    if values.dtype != np.uint8:
        # The high byte, as Orthanc's own PNG shows 16-bit colour.
        shift = max(0, (bits_stored or values.dtype.itemsize * 8) - 8)
        values = np.clip(values.astype(np.int64) >> shift, 0, 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(values, cv2.COLOR_RGB2BGR), np.uint8)


def fitted(shown: Grey, max_size: int | None) -> Grey:
    """Shrink a picture until its longest side is `max_size` pixels; smaller ones stay."""
    rows, columns = shown.shape[:2]
    longest = max(rows, columns)
    if max_size is None or longest <= max_size:
        return shown
    size = (max(1, round(columns * max_size / longest)), max(1, round(rows * max_size / longest)))
    return np.asarray(cv2.resize(shown, size, interpolation=cv2.INTER_AREA), np.uint8)


def refit_png(png: bytes, max_size: int | None, *, max_pixels: int) -> bytes:
    """Shrink a PNG of Orthanc's; it comes back unchanged when it is small enough.

    Raises:
        FrameNotRenderable: It is no PNG or has too many pixels.
    """
    if png[:8] != PNG_SIGNATURE or png[12:16] != b"IHDR":
        raise FrameNotRenderable(detail="Orthanc's picture is no PNG")
    columns, rows = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))
    if max_size is None or max(rows, columns) <= max_size:
        return png
    check_pixels(rows, columns, max_pixels=max_pixels)
    # 8 bits, grey or colour, whatever it is: the encoder knows nothing else.
    shown = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_ANYCOLOR)
    if shown is None:
        raise FrameNotRenderable(detail="Orthanc's PNG can't be read")
    return encode_png(fitted(np.asarray(shown, np.uint8), max_size))
