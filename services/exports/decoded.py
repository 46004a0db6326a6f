"""Compressed files as uncompressed ones: for viewers and media that know no compression.

Frames are decoded by the same processes as pictures, one at a time, while the file is sent. Files
that are not compressed are passed on as they are, whatever their transfer syntax.
"""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydicom.dataset import Dataset

from models import InstanceDocument
from services.dicom.codestream import CODESTREAM_KINDS, CodestreamKind
from services.dicom.display import NATIVE_SYNTAXES
from services.dicom.new_header import explicit_header
from services.errors import (
    FrameNotRenderable,
    OrthancNotFound,
    RendererUnavailable,
    RenderQueueFull,
)
from services.exports.contents import ExportOutdated
from services.frames.records import find_instance
from services.frames.service import FrameService
from services.orthanc.client import OrthancClient
from services.study_files import StudyFiles

_PIXEL_DATA = b"\xe0\x7f\x10\x00"
_LONGEST_VALUE = 0xFFFFFFFE
"""Longest value of an element with a length, in bytes (PS3.5 7.1)."""
_BYTE_BITS = 8
_COLOUR_SAMPLES = 3

_TRIES = 30
_TRY_SECONDS = 1.0
"""Frames on screens go first: a decoder that is busy or starts again is waited for so long."""


class DecodedFiles:
    """Compressed files, decoded.

    Args:
        files: Reads headers.
        frames: Decodes frames.
        orthanc: Knows where the files are.
    """

    def __init__(self, files: StudyFiles, frames: FrameService, orthanc: OrthancClient) -> None:
        self._files = files
        self._frames = frames
        self._orthanc = orthanc

    async def find(self, instance_id: str, revision: str) -> InstanceDocument | None:
        """Return an instance that is compressed; None for others.

        Raises:
            ExportOutdated: It was deleted, or another revision of it is indexed.
        """
        instance = await find_instance(instance_id)
        if instance is None or instance.revision != revision:
            # Its attributes and its frames would be those of two files.
            raise ExportOutdated
        is_native = instance.transfer_syntax_uid in {None, *NATIVE_SYNTAXES}
        return None if is_native else instance

    async def check(self, instance: InstanceDocument) -> None:
        """Decode every frame of a file, and throw it away.

        Raises:
            FrameNotRenderable: One can't be decoded, or the file would be too long.
        """
        if not instance.number_of_frames:
            raise FrameNotRenderable(instance.not_renderable_reason)
        _length_of(instance)
        for frame_index in range(instance.number_of_frames):
            await self._decoded(instance, frame_index)

    @asynccontextmanager
    async def opened(self, instance: InstanceDocument) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a file in Explicit VR Little Endian.

        Raises:
            FrameError: A frame can't be decoded.
            OrthancError: The file can't be read.
        """
        stored = await self._orthanc.stored_files([instance.id])
        if not stored:
            raise OrthancNotFound
        header = await self._files.header(stored[0])
        _describe_decoded(header, instance)
        length = _length_of(instance)
        vr = b"OW" if (instance.bits_allocated or 0) > _BYTE_BITS else b"OB"
        padded = length + length % 2
        head = explicit_header(header) + _PIXEL_DATA + vr + struct.pack("<HI", 0, padded)

        async def chunks() -> AsyncIterator[bytes]:
            yield head
            for frame_index in range(instance.number_of_frames):
                yield await self._decoded(instance, frame_index)
            yield bytes(length % 2)

        yield chunks()

    async def _decoded(self, instance: InstanceDocument, frame_index: int) -> bytes:
        content = b""
        for tries in range(_TRIES):
            try:
                content = (await self._frames.decoded(instance, frame_index)).content
                break
            except (RenderQueueFull, RendererUnavailable):
                if tries == _TRIES - 1:
                    raise
                await asyncio.sleep(_TRY_SECONDS)
        if len(content) != _frame_bytes(instance):
            raise FrameNotRenderable("A frame of this file has another size than its header says.")
        return content


def _frame_bytes(instance: InstanceDocument) -> int:
    samples = (instance.rows or 0) * (instance.columns or 0) * (instance.samples_per_pixel or 1)
    return samples * (instance.bits_allocated or 0) // _BYTE_BITS


def _length_of(instance: InstanceDocument) -> int:
    length = _frame_bytes(instance) * instance.number_of_frames
    if length > _LONGEST_VALUE:
        raise FrameNotRenderable("Uncompressed, the pixel data of this file would be too long.")
    return length


def _describe_decoded(header: Dataset, instance: InstanceDocument) -> None:
    """Describe the samples as they are decoded (`services.frames.decoding`)."""
    if "NumberOfFrames" in header or instance.number_of_frames != 1:
        header.NumberOfFrames = instance.number_of_frames
    if (instance.samples_per_pixel or 1) == _COLOUR_SAMPLES:
        kind = CODESTREAM_KINDS.get(instance.transfer_syntax_uid or "")
        is_ybr = instance.photometric_interpretation in {"YBR_FULL", "YBR_FULL_422"}
        stays_ybr = is_ybr and kind is not CodestreamKind.JPEG
        header.PhotometricInterpretation = "YBR_FULL" if stays_ybr else "RGB"
        header.PlanarConfiguration = 0
