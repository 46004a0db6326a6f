"""Masks of one bit, as segmentations have them, in every transfer syntax that can hold them."""

import zlib
from collections.abc import Callable

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEG2000Lossless, RLELossless

from services.dicom.codestream import DEFLATED_FRAMES
from services.dicom.display import FrameDisplay, PixelDescription
from services.errors import FrameNotRenderable
from services.frames.rendering import RenderRequest, render_frame
from services.frames.variant import FrameVariant
from tests.pydicom_pictures import decoded, expected
from tests.services.frames.test_pipeline_wrong_pictures import made, rle

ROWS, COLUMNS = 33, 47
"""Their product is odd, so that a frame ends within a byte."""

Mask = npt.NDArray[np.uint8]


def packed(mask: Mask) -> bytes:
    return bytes(np.packbits(mask.ravel(), bitorder="little"))


def deflated(content: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(content) + deflater.flush()


def jpeg_2000(mask: Mask) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(mask, codecformat="j2k", bitspersample=1))


def shown(content: bytes, syntax: str, *, bits: int = 1) -> npt.NDArray[np.int64]:
    description = PixelDescription(
        transfer_syntax_uid=syntax,
        rows=ROWS,
        columns=COLUMNS,
        bits_allocated=bits,
        bits_stored=bits,
        high_bit=bits - 1,
    )
    return decoded(
        render_frame(RenderRequest(content, description, FrameDisplay(), FrameVariant()))
    )


@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        (RLELossless, lambda mask: rle([np.frombuffer(packed(mask), np.uint8)])),
        (JPEG2000Lossless, jpeg_2000),
        (DEFLATED_FRAMES, lambda mask: deflated(packed(mask))),
    ],
    ids=["RLE", "JPEG 2000", "deflated"],
)
def test_masks_of_one_bit(syntax: str, encode: Callable[[Mask], bytes]) -> None:
    mask = np.random.default_rng(3).integers(0, 2, (ROWS, COLUMNS), np.uint8)
    assert (shown(encode(mask), syntax) == mask.astype(int) * 255).all()


def test_masks_in_jpeg_2000_are_those_of_pydicom() -> None:
    mask = np.random.default_rng(3).integers(0, 2, (ROWS, COLUMNS), np.uint8)
    dataset = made(mask, syntax=JPEG2000Lossless, pixels=jpeg_2000(mask))
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 1, 1, 0
    dataset.PixelData = encapsulate([jpeg_2000(mask)])
    assert (shown(jpeg_2000(mask), JPEG2000Lossless) == expected(dataset)).all()
    assert dataset.file_meta.TransferSyntaxUID == UID(JPEG2000Lossless)


@pytest.mark.parametrize("bits", [8, 16])
def test_deflated_frames_of_whole_bytes(bits: int) -> None:
    values = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS) % 256
    picture = shown(deflated(values.astype(f"<u{bits // 8}").tobytes()), DEFLATED_FRAMES, bits=bits)
    assert (picture == values).all()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xff\xff", "damaged"),
        (b"", "shorter than one frame"),
        (deflated(bytes(ROWS * COLUMNS // 8)), "shorter than one frame"),
        (deflated(bytes(range(256)))[:150], "shorter than one frame"),
    ],
)
def test_deflated_frames_that_are_damaged_or_short_are_refused(content: bytes, reason: str) -> None:
    with pytest.raises(FrameNotRenderable, match=reason):
        shown(content, DEFLATED_FRAMES)


def test_a_deflated_frame_inflates_no_further_than_a_frame() -> None:
    bomb = deflated(bytes(64 * 1024**2))
    assert not shown(bomb, DEFLATED_FRAMES).any()
