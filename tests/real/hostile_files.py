"""Makes files that attack: seeded damage to good ones, and archives that are bombs."""

import io
import random
import struct
import zipfile
from functools import cache
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames

SOURCES = (
    "CT_small.dcm",
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_jp2klossless.dcm",
    "JPEG2000.dcm",
    "JPGLosslessP14SV1_1s_1f_8b.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "SC_rgb_small_odd.dcm",
    "emri_small.dcm",
    "emri_small_jpeg_2k_lossless.dcm",
    "emri_small_RLE.dcm",
    "rtplan.dcm",
    "ExplVR_BigEnd.dcm",
    "liver_1frame.dcm",
    "examples_palette.dcm",
)
"""Of pydicom: native, RLE, JPEG, JPEG 2000, one frame and many, palette and no image."""

_COMPRESSED = (
    "MR_small_RLE.dcm",
    "MR_small_jp2klossless.dcm",
    "JPEG2000.dcm",
    "JPGLosslessP14SV1_1s_1f_8b.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "emri_small_jpeg_2k_lossless.dcm",
    "emri_small_RLE.dcm",
    "JPEG-LL.dcm",
    "JPEG-lossy.dcm",
)

_IMAGE_ATTRIBUTES = (
    ("SamplesPerPixel", "US"),
    ("PhotometricInterpretation", "CS"),
    ("PlanarConfiguration", "US"),
    ("NumberOfFrames", "IS"),
    ("FrameIncrementPointer", "AT"),
    ("Rows", "US"),
    ("Columns", "US"),
    ("BitsAllocated", "US"),
    ("BitsStored", "US"),
    ("HighBit", "US"),
    ("PixelRepresentation", "US"),
)
_NUMBERS = (0, 1, 2, 3, 4, 7, 8, 12, 16, 17, 32, 64, 255, 1024, 65_535)
_TEXTS = {
    "CS": ("MONOCHROME1", "RGB", "YBR_FULL", "YBR_FULL_422", "PALETTE COLOR", "ARGB", "", "X"),
    "IS": ("0", "-1", "2", "1000000", "2147483647", "x", ""),
}
_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
_SEQUENCE = b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff"
_CT_PIXEL_DATA_AT = 6288


@cache
def content(name: str) -> bytes:
    """Return a file of pydicom."""
    return Path(str(get_testdata_file(name, download=False))).read_bytes()


def _content_of_its_own(name: str, number: int) -> bytes:
    """Return a file of pydicom with another SOPInstanceUID of the same length."""
    body = content(name)
    uid = str(dcmread(io.BytesIO(body), specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
    root = "2.25."
    own = f"{root}{10 ** (len(uid) - len(root) - 1) + number}"
    return body.replace(uid.encode(), own.encode())


def damaged(number: int) -> bytes:
    """Return a file with some bytes overwritten, taken away or added, by a seed."""
    chance = random.Random(f"bytes {number}")  # noqa: S311  # repeatable, not secret
    body = bytearray(_content_of_its_own(chance.choice(SOURCES), number))
    reach = chance.choice((400, 4000, len(body)))
    for _ in range(chance.choice((1, 2, 8))):
        at = chance.randrange(128, min(reach, len(body)))
        kind = chance.randrange(5)
        if kind == 0:
            body[at] = chance.randrange(256)
        elif kind == 1:
            body[at : at + 4] = b"\xff" * 4
        elif kind == 2:  # one of five kinds
            body[at : at + 2] = chance.randbytes(2)
        elif kind == 3:  # one of five kinds
            del body[at : at + chance.randrange(1, 9)]
        else:
            body[at:at] = chance.randbytes(chance.randrange(1, 9))
    if chance.random() < 0.1:  # a tenth is cut off
        del body[chance.randrange(200, len(body)) :]
    return bytes(body)


def with_damaged_image(number: int) -> bytes:
    """Return a file whose image attributes contradict its pixels, by a seed."""
    chance = random.Random(f"image {number}")  # noqa: S311  # repeatable, not secret
    dataset = dcmread(io.BytesIO(content(chance.choice(SOURCES))))
    dataset.SOPInstanceUID = f"1.2.826.0.1.3680043.10.1.{number}"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    for _ in range(chance.choice((1, 1, 2, 3))):
        _damage_attribute(dataset, chance)
    if chance.random() < 0.2 and "PixelData" in dataset:  # a fifth has odd pixels
        dataset.PixelData = dataset.PixelData[: chance.choice((0, 2, 8, 100, 1000))]
    written = io.BytesIO()
    try:
        dataset.save_as(written)
    except (ValueError, TypeError, AttributeError, struct.error):
        # pydicom can't write all of it: the next seed may do.
        return with_damaged_image(number + 1_000_000)
    return written.getvalue()


def with_damaged_codestream(number: int) -> bytes:
    """Return a file with damage in the compressed pixels of one frame, by a seed.

    Half of the damage hits the first 200 bytes, where codestreams have their headers: sizes,
    components, tables and, for RLE, the offsets of segments.
    """
    chance = random.Random(f"codestream {number}")  # noqa: S311  # repeatable, not secret
    dataset = dcmread(io.BytesIO(content(chance.choice(_COMPRESSED))))
    dataset.SOPInstanceUID = f"1.2.826.0.1.3680043.10.6.{number}"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    count = int(dataset.get("NumberOfFrames", 1))
    frames = [bytearray(one) for one in generate_frames(dataset.PixelData, number_of_frames=count)]
    frame = frames[chance.choice((0, -1))]
    for _ in range(chance.choice((1, 2, 8))):
        at = chance.randrange(min(len(frame), chance.choice((200, len(frame)))))
        kind = chance.randrange(4)
        if kind == 0:
            frame[at] = chance.randrange(256)
        elif kind == 1:
            frame[at : at + 4] = b"\xff\xff\xff\xff"
        elif kind == 2:  # one of four kinds
            frame[at : at + 2] = b"\x00\x00"
        else:
            frame[at:at] = chance.randbytes(chance.randrange(1, 9))
    if chance.random() < 0.1:  # a tenth is cut off
        del frame[chance.randrange(1, len(frame)) :]
    dataset.PixelData = encapsulate([bytes(one) for one in frames])
    written = io.BytesIO()
    dataset.save_as(written)
    return written.getvalue()


def _damage_attribute(dataset: Dataset, chance: random.Random) -> None:
    keyword, vr = chance.choice(_IMAGE_ATTRIBUTES)
    if keyword in dataset and chance.random() < 0.3:  # a third goes
        delattr(dataset, keyword)
        return
    value: object = chance.choice(_NUMBERS)
    if vr == "AT":
        value = chance.choice((0x00181063, 0x00181065, 0x00540010))
    elif vr in _TEXTS:
        value = chance.choice(_TEXTS[vr])
    dataset.add_new(keyword, vr, None)
    # Around the checks of pydicom, which would correct it.
    dataset[keyword]._value = value


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process had until now (VmHWM); 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if "VmHWM" in line), 0)


def forget_peak(pid: int) -> None:
    """Let the kernel measure the peak of resident memory anew (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def nested(depth: int) -> bytes:
    """Return a CT with sequences inside each other."""
    end = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    elements = (_SEQUENCE + _ITEM) * depth + end * depth
    ct = content("CT_small.dcm")
    return ct[:_CT_PIXEL_DATA_AT] + elements + ct[_CT_PIXEL_DATA_AT:]


def with_uid(uid: str) -> bytes:
    """Return a CT with another SOPInstanceUID, whatever it is."""
    ct = content("CT_small.dcm")
    start = ct.index(b"\x08\x00\x18\x00UI")
    length = struct.unpack_from("<H", ct, start + 6)[0]
    value = uid.encode() + b"\0" * (len(uid.encode()) % 2)
    head = ct[: start + 6] + struct.pack("<H", len(value)) + value
    return head + ct[start + 8 + length :]


def archive(*members: tuple[str, bytes]) -> bytes:
    """Return a ZIP."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, body in members:
            file.writestr(name, body)
    return packed.getvalue()
