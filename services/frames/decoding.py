"""From the stored bytes of one frame to its samples."""

import os
import zlib
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from services.dicom.codestream import (
    CODESTREAM_KINDS,
    Codestream,
    CodestreamKind,
    read_codestream,
)
from services.dicom.display import YBR_FULL_422, PixelDescription, ValueType
from services.dicom.layout import EXPLICIT_VR_LITTLE_ENDIAN
from services.dicom.pixel_support import codestream_fault
from services.errors import FrameDamaged, FrameNotRenderable

Samples = npt.NDArray[np.integer[Any] | np.floating[Any]]

RGB = "RGB"
YBR_FULL = "YBR_FULL"
_BYTE_BITS = 8
_COLOUR_SAMPLES = 3

_SMALL_BITS = 8 * 8 * 1024 * 1024
"""Of a frame of 8 MiB: any decoder takes far less memory for it than a renderer may have."""

_STARTS_SCAN = b"\xff\xda"
_ENDS_JPEG = b"\xff\xd9"
"""Markers SOS and EOI of JPEG and JPEG-LS (ISO/IEC 10918-1 B.1.1.3, 14495-1 C.1.1); neither stands
within the data of a scan."""

_MORE_OF_A_SCAN = bytes(89 * n % 251 for n in range(256))
"""Data that a scan may hold: no marker is in it."""


@dataclass(frozen=True, slots=True)
class SampleBits:
    """Which bits of an integer word are a sample (PS3.5 8.1.1).

    Attributes:
        stored: How many, at least 1.
        shift: Bits of the word below them.
        is_signed: They are in two's complement.
    """

    stored: int
    shift: int = 0
    is_signed: bool = False


@dataclass(frozen=True, slots=True)
class DecodedFrame:
    """The samples of one frame.

    Attributes:
        samples: Rows x columns for one sample per pixel, else rows x columns x 3. Integers are
            words as they are stored: unsigned, with whatever stands beside their used bits.
        bits: Which bits of them count; without meaning for floating-point numbers.
        colour_space: `RGB` or `YBR_FULL` of three samples, else `""`.
    """

    samples: Samples
    bits: SampleBits
    colour_space: str = ""


def decode_frame(frame: bytes, description: PixelDescription, bit_offset: int = 0) -> DecodedFrame:
    """Decode one frame.

    Args:
        frame: Its stored bytes: native, or one codestream.
        description: How the instance stores its frames.
        bit_offset: Bits at the beginning that belong to the frame before (`FrameSpan`).

    Raises:
        FrameDamaged: The bytes are too short, contradict the description, or are damaged.
        FrameNotRenderable: A large frame can't be decoded, for whatever reason.
    """
    kind = CODESTREAM_KINDS.get(description.transfer_syntax_uid)
    if kind is None:
        return _native(frame, description, bit_offset)
    if kind is CodestreamKind.DEFLATED:
        return _inflated(frame, description)
    codestream = read_codestream(frame, kind)
    contradiction = codestream_fault(codestream, kind, description)
    if contradiction is not None:
        raise FrameDamaged(contradiction)
    try:
        samples = _DECODERS[kind](frame, description, codestream)
    except (FrameNotRenderable, MemoryError):
        raise
    except Exception as exc:  # imagecodecs raises one class for each codec and NumPy its own
        # A large one may have met a limit of memory or threads.
        fault = FrameDamaged if description.frame_bits <= _SMALL_BITS else FrameNotRenderable
        raise fault(f"The {kind} image of this frame is damaged.", detail=str(exc)) from exc
    return _encapsulated(_shaped(samples, description), description, codestream)


def sample_bytes(decoded: DecodedFrame, description: PixelDescription) -> bytes:
    """Return samples as Explicit VR Little Endian stores them (PS3.5 8.1.1), colours by pixel.

    Args:
        decoded: What `decode_frame` returned.
        description: Says where the used bits of a word are.

    Raises:
        FrameNotRenderable: Words of this size are not stored so.
    """
    samples, bits = decoded.samples, decoded.bits
    if samples.dtype.kind == "f":
        return samples.astype(samples.dtype.newbyteorder("<")).tobytes()
    word_bits = description.bits_allocated
    if word_bits not in {8, 16, 32, 64}:
        raise FrameNotRenderable(f"Samples of {word_bits} bits can't be answered uncompressed.")
    words = samples.astype(f"<u{word_bits // _BYTE_BITS}")
    shift = description.high_bit + 1 - description.bits_stored
    unused = word_bits - bits.stored
    if bits.shift == 0 and unused > 0:
        # The used bits alone, with their sign, at the place that the header says.
        words = words << unused
        if bits.is_signed:
            words = (words.view(f"<i{word_bits // _BYTE_BITS}") >> unused).view(words.dtype)
        else:
            words = words >> unused
        words = words << shift
    return words.tobytes()


def preload() -> None:
    """Import what decoding needs, so that the first frame does not wait for it."""
    from imagecodecs import (  # noqa: F401, PLC0415  # the decoders load with their names
        jpeg2k_decode,
        jpeg8_decode,
        jpegls_decode,
        jpegxl_decode,
        packbits_decode,
    )


def _encapsulated(
    samples: Samples, description: PixelDescription, codestream: Codestream | None
) -> DecodedFrame:
    """Say which bits of decoded samples count, and what colours they are."""
    is_signed_output = samples.dtype.kind == "i"
    words = samples.view(f"u{samples.dtype.itemsize}") if is_signed_output else samples
    word_bits = samples.dtype.itemsize * _BYTE_BITS
    bits_stored, shift = description.bits_stored, description.high_bit + 1 - description.bits_stored
    precision = codestream.precision if codestream is not None else description.bits_allocated
    if precision < description.high_bit + 1:
        # The codestream holds the used bits alone.
        shift = 0
    if (
        codestream is not None
        and codestream.kind is not CodestreamKind.JPEG
        and precision < bits_stored
    ):
        # Its own precision is where the sign is (pydicom `_apply_sign_correction`).
        bits_stored = precision
    return DecodedFrame(
        words,
        SampleBits(min(bits_stored, word_bits - shift), shift, description.is_signed),
        colour_space=_colour_space(description, codestream),
    )


def _colour_space(description: PixelDescription, codestream: Codestream | None) -> str:
    if description.samples_per_pixel != _COLOUR_SAMPLES:
        return ""
    if codestream is not None and codestream.kind is CodestreamKind.JPEG:
        return RGB
    is_ybr = description.photometric_interpretation in {YBR_FULL, YBR_FULL_422}
    return YBR_FULL if is_ybr else RGB


def _shaped(samples: Samples, description: PixelDescription) -> Samples:
    expected: tuple[int, ...] = (description.rows, description.columns)
    if description.samples_per_pixel > 1:
        expected = (*expected, description.samples_per_pixel)
    elif samples.ndim > len(expected) and samples.shape[-1] == 1:
        samples = samples[..., 0]
    if samples.shape != expected:
        raise FrameDamaged(
            "The image of this frame does not have the size that its header says.",
            detail=f"{samples.shape} instead of {expected}",
        )
    return samples


def _jpeg(frame: bytes, description: PixelDescription, codestream: Codestream | None) -> Samples:
    samples = _jpeg_samples(frame, description, codestream)
    if _ENDS_JPEG in frame[frame.rfind(_STARTS_SCAN) :]:
        return samples
    # libjpeg makes up what is missing. Where nothing is, it makes nothing of what is added either.
    longer = frame.removesuffix(b"\xff") + _MORE_OF_A_SCAN
    if not np.array_equal(samples, _jpeg_samples(longer, description, codestream)):
        raise FrameDamaged("The JPEG image of this frame is cut off.")
    return samples


def _jpeg_samples(
    frame: bytes, description: PixelDescription, codestream: Codestream | None
) -> Samples:
    from imagecodecs import jpeg8_decode  # noqa: PLC0415  # renderer processes alone need it

    if codestream is None or codestream.components != _COLOUR_SAMPLES:
        return np.asarray(jpeg8_decode(frame))
    is_rgb = codestream.is_rgb
    if is_rgb is None:
        # The codestream does not say it: the header does.
        is_rgb = not description.photometric_interpretation.startswith("YBR")
    return np.asarray(
        jpeg8_decode(frame, colorspace="rgb" if is_rgb else "ycbcr", outcolorspace="rgb")
    )


def _jpeg_ls(frame: bytes, _description: PixelDescription, _: Codestream | None) -> Samples:
    from imagecodecs import jpegls_decode  # noqa: PLC0415

    # CharLS refuses it as well, but sometimes after seconds.
    if _ENDS_JPEG not in frame[frame.rfind(_STARTS_SCAN) :]:
        raise FrameDamaged("The JPEG-LS image of this frame is cut off.")
    return np.asarray(jpegls_decode(frame))


_THREADS = min(4, os.cpu_count() or 1)
"""Of a decoder that divides one image: who waits for a radiograph waits half as long, and while
all renderers are busy it costs nothing."""


def _jpeg_2000(frame: bytes, _description: PixelDescription, _: Codestream | None) -> Samples:
    from imagecodecs import jpeg2k_decode  # noqa: PLC0415

    return np.asarray(jpeg2k_decode(frame, planar=False, numthreads=_THREADS))


def _jpeg_xl(frame: bytes, _description: PixelDescription, _: Codestream | None) -> Samples:
    from imagecodecs import jpegxl_decode  # noqa: PLC0415

    return np.asarray(jpegxl_decode(frame, index=0, numthreads=1))


def _rle(frame: bytes, description: PixelDescription, _: Codestream | None) -> Samples:
    """Decode segments of bytes, the highest byte of the first sample first (PS3.5 G).

    imagecodecs decodes whole frames as well: it trusts their offsets and ends the process where
    these are wrong, and a segment that is padded shifts the samples behind it.
    """
    from imagecodecs import packbits_decode  # noqa: PLC0415  # renderer processes alone need it

    pixels = description.rows * description.columns
    if description.bits_allocated == 1:
        # Eight pixels in a byte, the first in the lowest bit, as native ones (PS3.5 8.1.1).
        packed = replace(description, rows=1, columns=-(-pixels // 8), bits_allocated=8)
        octets = _rle(frame, packed, None).astype(np.uint8).ravel()
        bits: Samples = np.unpackbits(octets, count=pixels, bitorder="little")
        return bits.reshape(description.rows, description.columns)
    samples, word_bytes = description.samples_per_pixel, description.bits_allocated // _BYTE_BITS
    planes = np.empty((samples, pixels, word_bytes), np.uint8)
    output = np.empty(pixels + _LONGEST_RUN, np.uint8)
    segments = _rle_segments(frame, samples * word_bytes)
    for index, segment in enumerate(segments):
        decoded = np.frombuffer(packbits_decode(segment, out=output.data), np.uint8)
        if decoded.size < pixels:
            raise FrameDamaged("The RLE image of this frame is shorter than one frame.")
        sample, place = divmod(index, word_bytes)
        planes[sample, :, word_bytes - 1 - place] = decoded[:pixels]
    # Planes whatever PlanarConfiguration says (PS3.5 G.2).
    shape = (samples, description.rows, description.columns)
    return np.moveaxis(planes.view(f"<u{word_bytes}").reshape(shape), 0, 2)


_RLE_HEADER_BYTES = 64
_LONGEST_RUN = 128
"""Bytes of one run: padding behind the pixels may be one more."""


def _rle_segments(frame: bytes, count: int) -> list[bytes]:
    """Cut a frame at the offsets of its header (PS3.5 G.5)."""
    if len(frame) < _RLE_HEADER_BYTES:
        raise FrameDamaged("The RLE image of this frame is shorter than one frame.")
    declared, *offsets = np.frombuffer(frame, "<u4", _RLE_HEADER_BYTES // 4).tolist()
    if declared != count:
        raise FrameDamaged("Its SamplesPerPixel is not that of its RLE image.")
    places = [*offsets[:count], len(frame)]
    if places[0] < _RLE_HEADER_BYTES or places != sorted(places):
        raise FrameDamaged("The RLE image of this frame is damaged.")
    return [frame[begin:end] for begin, end in pairwise(places)]


_DECODERS = {
    CodestreamKind.JPEG: _jpeg,
    CodestreamKind.JPEG_LS: _jpeg_ls,
    CodestreamKind.JPEG_2000: _jpeg_2000,
    CodestreamKind.JPEG_XL: _jpeg_xl,
    CodestreamKind.RLE: _rle,
}


def _inflated(frame: bytes, description: PixelDescription) -> DecodedFrame:
    """Inflate a frame, no further than one frame goes, and read it as a native one."""
    native = replace(description, transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN)
    try:
        content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(frame, native.frame_span(0).end)
    except zlib.error as exc:
        raise FrameDamaged("The deflated image of this frame is damaged.") from exc
    return _native(content, native, 0)


_FLOATS = {ValueType.FLOAT: "f4", ValueType.DOUBLE: "f8"}


def _native(frame: bytes, description: PixelDescription, bit_offset: int) -> DecodedFrame:
    """Read native samples without copying them where their bytes allow it (PS3.5 8.1.1, 8.2)."""
    needed = bit_offset + description.frame_bits
    if len(frame) * _BYTE_BITS < needed:
        raise FrameDamaged("The pixel data of this frame is shorter than one frame.")
    order = ">" if description.is_big_endian else "<"
    shape = (description.rows, description.columns)
    if description.value_type is not ValueType.INTEGER:
        values = np.frombuffer(
            frame, order + _FLOATS[description.value_type], description.rows * description.columns
        )
        return DecodedFrame(values.reshape(shape), SampleBits(values.dtype.itemsize * _BYTE_BITS))
    if description.bits_allocated == 1:
        # The first pixel is the lowest bit (PS3.5 8.2.1, Annex D).
        bits = np.unpackbits(np.frombuffer(frame, np.uint8), count=needed, bitorder="little")
        return DecodedFrame(bits[bit_offset:].reshape(shape), SampleBits(1))
    if description.is_byte_swapped:
        frame = np.frombuffer(frame, ">u2", len(frame) // 2).astype("<u2").tobytes()
    words = _words(frame[bit_offset // _BYTE_BITS :], description, order)
    samples = _planes(words, description)
    return DecodedFrame(
        samples,
        SampleBits(
            description.bits_stored,
            description.high_bit + 1 - description.bits_stored,
            description.is_signed,
        ),
        colour_space=_colour_space(description, None),
    )


def _words(
    frame: bytes, description: PixelDescription, order: str
) -> npt.NDArray[np.unsignedinteger[Any]]:
    count = description.frame_bits // description.bits_allocated
    size = description.bits_allocated // _BYTE_BITS
    if size == 3:  # noqa: PLR2004  # no type of NumPy has 24 bits
        three = np.frombuffer(frame, np.uint8, 3 * count).reshape(count, 3).astype(np.uint32)
        low, middle, high = three.T if order == "<" else three.T[::-1]
        return np.asarray(low | middle << np.uint32(8) | high << np.uint32(16))
    return np.frombuffer(frame, f"{order}u{size}", count)


def _planes(words: npt.NDArray[Any], description: PixelDescription) -> Samples:
    rows, columns = description.rows, description.columns
    if description.samples_per_pixel == 1:
        return words.reshape(rows, columns)
    if description.photometric_interpretation == YBR_FULL_422:
        # Y1 Y2 Cb Cr of every two pixels (PS3.3 C.7.6.3.1.2).
        pairs = words.reshape(rows, columns // 2, 4)
        full = np.empty((rows, columns, _COLOUR_SAMPLES), words.dtype)
        full[:, :, 0] = pairs[:, :, :2].reshape(rows, columns)
        full[:, :, 1] = pairs[:, :, 2].repeat(2, axis=1)
        full[:, :, 2] = pairs[:, :, 3].repeat(2, axis=1)
        return full
    samples = description.samples_per_pixel
    if description.planar_configuration == 1:
        return np.moveaxis(words.reshape(samples, rows, columns), 0, 2)
    return words.reshape(rows, columns, samples)
