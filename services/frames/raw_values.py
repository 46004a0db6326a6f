"""Stored values that are the bytes of the file: nothing is to decode.

Orthanc takes 1.2 ms to turn half a megabyte of them into an array (`/numpy`) and to send that.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from services.dicom.windowing import Stored
from services.errors import OrthancError
from services.frames.instances import RenderableInstance

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
