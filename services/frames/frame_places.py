"""Where the frames of one file are in it."""

import io
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple

from services.dicom.display import PixelDescription
from services.dicom.layout import FileLayout
from services.dicom.parser import walk
from services.errors import FileRejected, FrameNotRenderable
from services.frames.encapsulation import Fragment, group_fragments, read_fragments


class ByteRange(NamedTuple):
    """Bytes of a file, from `begin` up to `end`."""

    begin: int
    end: int


class FramePlaces:
    """The places of the frames of one file.

    Args:
        file: Seekable; read here only.
        layout: Of the file.

    Raises:
        FrameNotRenderable: The fragments of its pixel data can't be read.
    """

    def __init__(self, file: BinaryIO, layout: FileLayout) -> None:
        self._layout = layout
        self._fragments: tuple[list[int], list[Fragment]] | None = None
        if layout.pixel_data_is_encapsulated and layout.pixel_data_offset is not None:
            self._fragments = read_fragments(file, layout.pixel_data_offset)

    def find(
        self, description: PixelDescription, frame_index: int, frames: int
    ) -> tuple[Sequence[ByteRange], int]:
        """Find a frame.

        Args:
            description: How the instance stores its frames.
            frame_index: 0-based.
            frames: Number of frames of the instance.

        Returns:
            Where its bytes are, in their order; and the bits of the first byte that belong to the
            frame before.

        Raises:
            FrameNotRenderable: The frame is not there.
        """
        if self._fragments is not None:
            table, fragments = self._fragments
            of_frame = group_fragments(fragments, table, frames)[frame_index]
            return [ByteRange(one.begin, one.end) for one in of_frame], 0
        begin, length = self._layout.pixel_data_offset, self._layout.pixel_data_length
        if begin is None or length is None:
            raise FrameNotRenderable("Its pixel data is missing.")
        span = description.frame_span(frame_index)
        if span.end > length:
            raise FrameNotRenderable("Its pixel data ends before this frame does.")
        return [ByteRange(begin + span.begin, begin + span.end)], span.bit_offset


def only_frame(content: bytes, description: PixelDescription) -> tuple[bytes, int] | None:
    """Cut the only frame out of a file.

    Args:
        content: The whole file.
        description: How it stores its frame.

    Returns:
        As `FramePlaces.find`, with the bytes joined; None for a file that is not what the
        description says, that is deflated as a whole, or that can't be read.
    """
    file = io.BytesIO(content)
    try:
        layout = walk(file)
        if layout.is_deflated or layout.pixel_data_is_encapsulated == description.is_native:
            return None
        places, bit_offset = FramePlaces(file, layout).find(description, 0, 1)
    except (FileRejected, FrameNotRenderable):
        return None
    return b"".join(content[place.begin : place.end] for place in places), bit_offset
