"""Frames that Orthanc can't cut out of their file, or cuts wrongly, come from the right bytes."""

import io
import struct
from collections.abc import Sequence

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from models import InstanceDocument
from services.embedded.orthanc import EmbeddedOrthanc
from services.frames.variant import FrameVariant
from services.runtime import Runtime
from tests.pydicom_pictures import decoded
from tests.real.sync_stage import modality_client
from tests.servers import RunningServer

SIDE = 16
FULL = FrameVariant(full_range=True)
_ITEM = b"\xfe\xff\x00\xe0"
_END = b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"


def dataset(syntax: UID, frames: int, bits: int, number: int = 1) -> Dataset:
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = SecondaryCaptureImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = UID(f"1.2.3.{number}")
    made.PatientID, made.StudyInstanceUID, made.SeriesInstanceUID = "CUT", "1.2", "1.2.3"
    made.Rows = made.Columns = SIDE
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = bits
    made.HighBit, made.PixelRepresentation = bits - 1, 0
    made.NumberOfFrames = frames
    return made


def written(made: Dataset) -> bytes:
    stream = io.BytesIO()
    made.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def encapsulated(made: Dataset, fragments: Sequence[bytes], table: Sequence[int]) -> bytes:
    """Write a file whose pixel data has these fragments and this table, right or wrong."""
    made.add_new("PixelData", "OB", bytes(8))
    made["PixelData"].is_undefined_length = True
    # pydicom checks the beginning of encapsulated values; it is replaced as a whole.
    made.PixelData = _ITEM + bytes(4) + _ITEM + bytes(4)
    content = written(made)
    head = content[: content.rindex(b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff") + 12]
    offsets = struct.pack(f"<{len(table)}I", *table)
    items = (_ITEM + len(one).to_bytes(4, "little") + one for one in (offsets, *fragments))
    return head + b"".join(items) + _END


@pytest.fixture
def runtime(shared_server: RunningServer) -> Runtime:
    """One for all files: its renderers take long to start."""
    return shared_server.runtime


async def shown(
    runtime: Runtime, orthanc: EmbeddedOrthanc, content: bytes, frames: int
) -> list[npt.NDArray[np.int64]]:
    """Store a file as a modality does and render its frames."""
    async with modality_client(orthanc) as http:
        answer = (await http.post("/instances", content=content)).raise_for_status().json()
    assert runtime.sync is not None
    await runtime.sync.reconciler.reconcile([answer["ID"]])
    instance = await InstanceDocument.get(answer["ID"])
    assert instance is not None
    assert instance.number_of_frames == frames, instance.not_renderable_reason
    pictures = [await runtime.frames.render(instance, index, FULL) for index in range(frames)]
    return [decoded(picture.content) for picture in pictures]


def ramps(count: int) -> npt.NDArray[np.uint8]:
    """Frames that all differ: each a ramp from 0 to 255 in another place."""
    ramp = np.linspace(0, 255, SIDE * SIDE).astype(np.uint8).reshape(SIDE, SIDE)
    return np.stack([np.roll(ramp, 3 * index, axis=1) for index in range(count)])


def split(frame: bytes, parts: int) -> list[bytes]:
    size = -(-len(frame) // parts // 2) * 2
    fragments = [frame[at : at + size] for at in range(0, len(frame), size)]
    fragments[-1] += b"\0" * (len(fragments[-1]) % 2)
    return fragments


def rle(frame: npt.NDArray[np.uint8]) -> bytes:
    """Encode 8-bit grey as RLE Lossless: one segment of literal runs (PS3.5 G)."""
    rows = b"".join(bytes([SIDE - 1]) + row.tobytes() for row in frame)
    return struct.pack("<16I", 1, 64, *[0] * 14) + rows + b"\0" * (len(rows) % 2)


ENCODERS = {
    JPEG2000Lossless: lambda frame: bytes(
        imagecodecs.jpeg2k_encode(frame, level=0, codecformat="J2K")
    ),
    JPEGBaseline8Bit: lambda frame: bytes(imagecodecs.jpeg8_encode(frame, level=100)),
    RLELossless: rle,
}


@pytest.mark.parametrize("table", ["right", "none", "wrong frames", "wrong bytes", "short"])
@pytest.mark.parametrize("syntax", ENCODERS, ids=lambda uid: uid.name)
async def test_frames_of_several_fragments_are_right_with_every_table(
    runtime: Runtime, empty_orthanc: EmbeddedOrthanc, syntax: UID, table: str
) -> None:
    values = ramps(3)
    parts = [
        split(ENCODERS[syntax](frame), count)
        for frame, count in zip(values, (2, 1, 3), strict=True)
    ]
    fragments = [fragment for frame in parts for fragment in frame]
    places = [0, *np.cumsum([8 + len(fragment) for fragment in fragments]).tolist()]
    tables = {
        "right": [places[0], places[2], places[3]],
        "none": [],
        "wrong frames": [places[0], places[1], places[3]],
        "wrong bytes": [places[0], places[2] + 3, places[3]],
        "short": [places[0], places[2]],
    }
    content = encapsulated(dataset(syntax, 3, 8), fragments, tables[table])
    pictures = await shown(runtime, empty_orthanc, content, 3)
    for picture, frame in zip(pictures, values, strict=True):
        assert np.abs(picture - frame).max() <= (4 if syntax == JPEGBaseline8Bit else 1)


@pytest.mark.parametrize(
    "order",
    [(1, 0, 2), (0, 0, 2), (0, 1, 1), (0, 2, 1)],
    ids=lambda order: "".join(map(str, order)),
)
@pytest.mark.parametrize("syntax", ENCODERS, ids=lambda uid: uid.name)
async def test_a_table_that_lies_about_single_fragments_shows_no_other_frame(
    runtime: Runtime, empty_orthanc: EmbeddedOrthanc, syntax: UID, order: tuple[int, ...]
) -> None:
    values = ramps(3)
    fragments = [ENCODERS[syntax](frame) for frame in values]
    fragments = [fragment + b"\0" * (len(fragment) % 2) for fragment in fragments]
    places = [0, *np.cumsum([8 + len(fragment) for fragment in fragments]).tolist()]
    content = encapsulated(dataset(syntax, 3, 8), fragments, [places[index] for index in order])
    pictures = await shown(runtime, empty_orthanc, content, 3)
    for picture, frame in zip(pictures, values, strict=True):
        assert np.abs(picture - frame).max() <= (4 if syntax == JPEGBaseline8Bit else 1)


@pytest.mark.parametrize("table", [[], [0]])
async def test_a_single_frame_of_several_fragments_is_shown(
    runtime: Runtime, empty_orthanc: EmbeddedOrthanc, table: list[int]
) -> None:
    (values,) = ramps(1)
    fragments = split(ENCODERS[JPEG2000Lossless](values), 4)
    content = encapsulated(dataset(JPEG2000Lossless, 1, 8), fragments, table)
    (picture,) = await shown(runtime, empty_orthanc, content, 1)
    assert np.abs(picture - values).max() <= 1


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    ],
    ids=lambda uid: uid.name,
)
async def test_native_frames_are_right_in_every_byte_order(
    runtime: Runtime, empty_orthanc: EmbeddedOrthanc, syntax: UID
) -> None:
    values = ramps(2).astype(np.uint16) * 257
    order = ">u2" if syntax == ExplicitVRBigEndian else "<u2"
    made = dataset(syntax, 2, 16)
    made.add_new("PixelData", "OW", values.astype(order).tobytes())
    pictures = await shown(runtime, empty_orthanc, written(made), 2)
    assert max(np.abs(p - v // 257).max() for p, v in zip(pictures, values, strict=True)) <= 1


@pytest.mark.parametrize(("bits", "vr"), [(8, "OB"), (8, "OW"), (16, "OW"), (32, "OW")])
async def test_big_endian_samples_of_every_size_are_right(
    runtime: Runtime, empty_orthanc: EmbeddedOrthanc, bits: int, vr: str
) -> None:
    # A ramp whose bytes all differ: swapped ones are another picture.
    values = ramps(2).astype(np.uint64) * (((1 << bits) - 1) // 255)
    values[:, 0, 0] = values[:, 0, 0] // 3
    made = dataset(ExplicitVRBigEndian, 2, bits)
    content = values.astype(f">u{bits // 8}").tobytes()
    if (bits, vr) == (8, "OW"):
        # Bytes stand in words, whose higher byte is first (PS3.5 A.3).
        content = np.frombuffer(content, "<u2").astype(">u2").tobytes()
    made.add_new("PixelData", vr, content)
    pictures = await shown(runtime, empty_orthanc, written(made), 2)
    for picture, frame in zip(pictures, values.astype(np.float64), strict=True):
        levels = (frame - frame.min()) / (frame.max() - frame.min()) * 255
        assert np.abs(picture - levels).max() <= 1


async def test_masks_of_one_bit_need_not_end_on_a_byte(
    runtime: Runtime, empty_orthanc: EmbeddedOrthanc
) -> None:
    rows, columns, frames = 5, 3, 4
    masks = np.random.default_rng(2).integers(0, 2, (frames, rows, columns), dtype=np.uint8)
    made = dataset(ExplicitVRLittleEndian, frames, 1)
    made.Rows, made.Columns = rows, columns
    packed = np.packbits(masks.ravel(), bitorder="little").tobytes()
    made.add_new("PixelData", "OB", packed + b"\0" * (len(packed) % 2))
    pictures = await shown(runtime, empty_orthanc, written(made), frames)
    assert [picture.tolist() for picture in pictures] == (masks * 255).tolist()


async def test_floating_point_pixels_are_shown(
    runtime: Runtime, empty_orthanc: EmbeddedOrthanc
) -> None:
    values = ramps(2).astype("<f4") / 1000
    made = dataset(ExplicitVRLittleEndian, 2, 32)
    del made.BitsStored, made.HighBit, made.PixelRepresentation
    made.add_new("FloatPixelData", "OF", values.tobytes())
    pictures = await shown(runtime, empty_orthanc, written(made), 2)
    assert max(np.abs(p - v * 1000).max() for p, v in zip(pictures, values, strict=True)) <= 1
