"""DICOM files of any size, made while they are sent: zeros behind a header."""

import io
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pydicom
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

FRAME_BYTES = 512 * 512 * 2
_CHUNK = bytes(256 * 1024)
_BOUNDARY = "large"


@dataclass(frozen=True, slots=True)
class LargeUpload:
    """A GraphQL multipart request with one multi-frame file.

    Attributes:
        frames: How many frames of 512 KiB the file has.
        head: All of the request before the pixels.
        tail: What comes behind them.
    """

    frames: int
    head: bytes
    tail: bytes

    @property
    def headers(self) -> dict[str, str]:
        """Return what the request needs."""
        length = len(self.head) + self.frames * FRAME_BYTES + len(self.tail)
        return {
            "Content-Type": f"multipart/form-data; boundary={_BOUNDARY}",
            "Content-Length": str(length),
            "GraphQL-Preflight": "1",
        }

    async def body(self) -> AsyncIterator[bytes]:
        """Yield the request's body."""
        yield self.head
        for _ in range(self.frames * FRAME_BYTES // len(_CHUNK)):
            yield _CHUNK
        yield self.tail


def large_upload(operations: str, *, frames: int) -> LargeUpload:
    """Make an upload of a new file.

    Args:
        operations: The GraphQL operation, in JSON; its file is `variables.files.0`.
        frames: How many, of 512 KiB each.
    """
    parts = [
        _part('name="operations"', operations.encode()),
        _part('name="map"', b'{"0": ["variables.files.0"]}'),
        _part('name="0"; filename="large.dcm"', large_file_head(frames)),
    ]
    return LargeUpload(frames, b"\r\n".join(parts), f"\r\n--{_BOUNDARY}--\r\n".encode())


def _part(name: str, content: bytes) -> bytes:
    lines = f"--{_BOUNDARY}\r\nContent-Disposition: form-data; {name}\r\n\r\n"
    return lines.encode() + content


def large_file_head(frames: int) -> bytes:
    """Make a file up to its first pixel (PS3.5 7.1.2: explicit VR, 32-bit length).

    Args:
        frames: How many frames of `FRAME_BYTES` follow.
    """
    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    del dataset.PixelData
    dataset.remove_private_tags()
    dataset.pop("DataSetTrailingPadding", None)
    dataset.Rows = dataset.Columns = 512
    dataset.NumberOfFrames = frames
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    written = io.BytesIO()
    dataset.save_as(written)
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, frames * FRAME_BYTES)
    return written.getvalue() + pixels
