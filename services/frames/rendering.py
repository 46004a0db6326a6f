"""One frame to one picture: decoding, display and encoding, without I/O.

Runs in threads and in renderer processes alike, so it imports no database and no network.
"""

import io
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from services.dicom.display import FrameDisplay, PixelDescription
from services.errors import FrameNotRenderable
from services.frames import decoding
from services.frames.decoding import RGB, DecodedFrame, SampleBits, Samples, decode_frame
from services.frames.encoding import PNG_SIGNATURE, Picture, encode_jpeg, encode_png
from services.frames.pixels import fitted, picture
from services.frames.variant import FrameVariant, PictureFormat

_HEADERS = 64
"""Headers of arrays that are kept parsed, one for each size and type of frames: parsing one takes
longer than windowing a frame does."""

_COLOUR_DIMENSIONS = 3
_BYTE_BITS = 8


class Source(StrEnum):
    """What the content of a request is.

    STORED: the bytes of one frame as they are in the file, encapsulation removed and fragments
    joined. DECODED: Orthanc's answer to `GET /instances/{id}/frames/{n}/numpy?rescale=false`.
    PICTURE: a PNG of Orthanc's.
    """

    STORED = "stored"
    DECODED = "decoded"
    PICTURE = "picture"


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """All that the picture of a frame depends on.

    Attributes:
        content: The bytes of the frame.
        source: What they are.
        description: How the instance stores its frames.
        display: The display attributes of the frame.
        variant: How to show it.
        bit_offset: Bits at the beginning of stored bytes that belong to the frame before
            (`PixelDescription.frame_span`).
    """

    content: bytes
    source: Source
    description: PixelDescription
    display: FrameDisplay
    variant: FrameVariant
    bit_offset: int = 0


def render_frame(request: RenderRequest) -> bytes:
    """Render a frame.

    Returns:
        A PNG or a JPEG, as the variant says.

    Raises:
        FrameNotRenderable: The content is damaged or contradicts the description, with a sentence.
    """
    return show(decode(request), request)


def decode(request: RenderRequest) -> DecodedFrame | Picture:
    """Return what every variant of a frame is shown from, so that it can be kept.

    Raises:
        FrameNotRenderable: As `render_frame`.
    """
    if request.source is Source.PICTURE:
        return _read_png(request.content)
    if request.source is Source.STORED:
        return decode_frame(request.content, request.description, request.bit_offset)
    return _decoded_by_orthanc(read_npy(request.content), request.description)


def show(decoded: DecodedFrame | Picture, request: RenderRequest) -> bytes:
    """Encode what `decode` returned, as the variant of the request wants it.

    Raises:
        FrameNotRenderable: As `render_frame`.
    """
    if isinstance(decoded, DecodedFrame):
        shown = picture(decoded, request.description, request.display, request.variant)
    else:
        shown = fitted(decoded, request.variant.max_size)
    if request.variant.picture_format is PictureFormat.JPEG:
        return encode_jpeg(shown)
    return encode_png(shown)


def load_codecs() -> None:
    """Import every codec and keep OpenCV to one thread: once in a process that renders."""
    cv2.setNumThreads(1)
    decoding.preload()


def read_npy(npy: bytes) -> Samples:
    """Read an `.npy` file without copying its values and without unpickling anything.

    Args:
        npy: Orthanc's answer to `GET /instances/{id}/frames/{n}/numpy`: rows x columns x samples.

    Returns:
        Rows x columns for one sample per pixel, else rows x columns x 3.

    Raises:
        FrameNotRenderable: It has another shape or another type.
    """
    length_end = 10 if npy[6:7] == b"\x01" else 12
    start = length_end + int.from_bytes(npy[8:length_end], "little")
    try:
        shape, is_fortran, dtype = _read_header(npy[:start])
        if is_fortran or dtype.kind not in "iuf":
            raise FrameNotRenderable(detail=f"array of {dtype}")
        values: Samples = np.frombuffer(npy, dtype=dtype, offset=start).reshape(shape)
    except (ValueError, TypeError) as exc:
        raise FrameNotRenderable(detail=f"not a readable array: {exc}") from exc
    if values.ndim == _COLOUR_DIMENSIONS and values.shape[2] == 1:
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


def _decoded_by_orthanc(values: Samples, description: PixelDescription) -> DecodedFrame:
    """Take Orthanc's values: grey ones as they are stored, colours as RGB."""
    expected = (description.rows, description.columns)
    if values.shape[:2] != expected or values.ndim not in {2, _COLOUR_DIMENSIONS}:
        raise FrameNotRenderable(detail=f"Orthanc's array is {values.shape} instead of {expected}")
    if values.dtype.kind == "f":
        return DecodedFrame(values, SampleBits(values.dtype.itemsize * _BYTE_BITS))
    word_bits = values.dtype.itemsize * _BYTE_BITS
    words = values.view(f"u{values.dtype.itemsize}") if values.dtype.kind == "i" else values
    if values.ndim == _COLOUR_DIMENSIONS:
        return DecodedFrame(words, SampleBits(min(description.bits_stored, word_bits)), RGB)
    # Orthanc gives the words of the file, garbage beside their used bits included.
    bits = min(description.bits_stored, word_bits)
    shift = min(description.high_bit + 1, word_bits) - bits
    return DecodedFrame(words, SampleBits(bits, max(0, shift), description.is_signed))


def _read_png(png: bytes) -> Picture:
    if png[:8] != PNG_SIGNATURE or png[12:16] != b"IHDR":
        raise FrameNotRenderable(detail="Orthanc's picture is no PNG")
    # 8 bits, grey or colour, whatever it is: the encoder knows nothing else.
    shown = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_ANYCOLOR)
    if shown is None:
        raise FrameNotRenderable(detail="Orthanc's PNG can't be read")
    return np.asarray(shown, np.uint8)
