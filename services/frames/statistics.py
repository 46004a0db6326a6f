"""Statistics of a region of a frame, of the values behind the modality LUT (PS3.3 C.11.1)."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from services.dicom.display import PALETTE_COLOR, FrameDisplay, PixelDescription
from services.dicom.layout import EXPLICIT_VR_LITTLE_ENDIAN
from services.errors import InvalidInput
from services.frames.decoding import decode_frame
from services.frames.pixels import modality_values

_COORDINATE_LIMIT = 1e6
"""Pixels: no frame is as wide."""


@dataclass(frozen=True, slots=True)
class Ellipse:
    """An ellipse whose axes are those of the frame.

    Coordinates are in pixels from the upper left corner of the first pixel, whose centre is at 0.5.

    Attributes:
        column: Of the centre, along the rows.
        row: Of the centre, down the columns.
        radius_columns: Half its width; 0 or more.
        radius_rows: Half its height; 0 or more.
    """

    column: float
    row: float
    radius_columns: float
    radius_rows: float

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InvalidInput: One is not finite, far away, or a radius is negative.
        """
        numbers = (self.column, self.row, self.radius_columns, self.radius_rows)
        is_near = all(math.isfinite(value) and abs(value) <= _COORDINATE_LIMIT for value in numbers)
        if not is_near or min(self.radius_columns, self.radius_rows) < 0:
            message = "An ellipse needs finite pixel coordinates and radii of 0 or more."
            raise InvalidInput(message, argument="ellipse")


@dataclass(frozen=True, slots=True)
class RegionStatistics:
    """What the values of a region are, in output units of the modality LUT."""

    mean: float
    standard_deviation: float
    minimum: float
    maximum: float
    number_of_pixels: int


def measure(
    content: bytes, description: PixelDescription, display: FrameDisplay, ellipse: Ellipse
) -> RegionStatistics | None:
    """Return the statistics of the pixels whose centres lie in an ellipse; blocks.

    Args:
        content: The samples of the frame as Explicit VR Little Endian stores them.
        description: How the instance stores its frames.
        display: The display attributes of the frame.
        ellipse: A small one that no centre lies in stands for the pixel that it is on.

    Returns:
        None where the ellipse lies beside the frame, and for colours: they have no values.

    Raises:
        FrameNotRenderable: The content contradicts the description.
    """
    if description.samples_per_pixel != 1 or (
        description.photometric_interpretation == PALETTE_COLOR
    ):
        return None
    native = replace(
        description, transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN, is_stored_in_words=False
    )
    decoded = decode_frame(content, native)
    words = _inside(decoded.samples, ellipse)
    values = modality_values(words, decoded.bits, display)
    values = values[np.isfinite(values)]
    if not values.size:
        return None
    return RegionStatistics(
        mean=float(values.mean()),
        standard_deviation=float(values.std()),
        minimum=float(values.min()),
        maximum=float(values.max()),
        number_of_pixels=int(values.size),
    )


def _inside(samples: npt.NDArray[Any], ellipse: Ellipse) -> npt.NDArray[Any]:
    """Return the samples whose centres lie in an ellipse, as one dimension."""
    rows, columns = samples.shape
    top, bottom = _span(ellipse.row, ellipse.radius_rows, rows)
    left, right = _span(ellipse.column, ellipse.radius_columns, columns)
    part = samples[top:bottom, left:right]
    down = (np.arange(top, bottom) + 0.5 - ellipse.row) / (ellipse.radius_rows or 1.0)
    across = (np.arange(left, right) + 0.5 - ellipse.column) / (ellipse.radius_columns or 1.0)
    is_inside = down[:, None] ** 2 + across[None, :] ** 2 <= 1.0
    if is_inside.any():
        return part[is_inside]
    row, column = math.floor(ellipse.row), math.floor(ellipse.column)
    if 0 <= row < rows and 0 <= column < columns:
        return samples[row : row + 1, column]
    return samples[:0, 0]


def _span(center: float, radius: float, count: int) -> tuple[int, int]:
    """Return the pixels of one axis that an ellipse may touch."""
    begin = min(max(math.floor(center - radius), 0), count)
    return begin, min(max(math.ceil(center + radius), begin), count)
