"""Stored values to display values: modality LUT, VOI LUT or window, polarity (PS3.3 C.11)."""

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from services.dicom.lookup_tables import FloatArray, LookupTable

Grey = npt.NDArray[np.uint8]
Stored = npt.NDArray[np.integer[Any] | np.floating[Any]]

_WHITE = 255
_TABLES = 64
"""Display tables kept: 64 KiB each, one per set of attributes and window in use."""

_TABLE_TYPES = ("uint8", "int8", "uint16", "int16")


class VoiFunction(StrEnum):
    """VOILUTFunction (PS3.3 C.11.2.1.3)."""

    LINEAR = "LINEAR"
    LINEAR_EXACT = "LINEAR_EXACT"
    SIGMOID = "SIGMOID"

    @classmethod
    def of(cls, text: str | None) -> "VoiFunction":
        """Return the function of that name; LINEAR when absent or unknown."""
        try:
            return cls((text or "").strip().upper())
        except ValueError:
            return cls.LINEAR


@dataclass(frozen=True, slots=True)
class Window:
    """A window in output units of the modality LUT; `width` is above 0, 1 or more for LINEAR."""

    center: float
    width: float
    function: VoiFunction = VoiFunction.LINEAR


@dataclass(frozen=True, slots=True)
class Display:
    """What turns stored grey values into display values.

    Attributes:
        is_inverted: MONOCHROME1: the smallest value is white (PS3.3 C.7.6.3.1.2).
        rescale_slope: Output units per stored value.
        rescale_intercept: Output units.
        modality_lut: Used instead of slope and intercept when it is there.
        window: The first window of the file.
        voi_lut: The first VOI LUT of the file; goes before the window of the file.
    """

    is_inverted: bool = False
    rescale_slope: float = 1.0
    rescale_intercept: float = 0.0
    modality_lut: LookupTable | None = None
    window: Window | None = None
    voi_lut: LookupTable | None = None

    @property
    def has_voi(self) -> bool:
        """Whether the file says how to show it."""
        return self.window is not None or self.voi_lut is not None


def render_window(stored: Stored, display: Display, window: Window | None = None) -> Grey:
    """Show grey values through a window or a VOI LUT.

    Args:
        stored: Stored values of one sample per pixel, any numeric type, any shape.
        display: The display attributes; `has_voi` unless a window is given.
        window: Replaces the window and the VOI LUT of the file.

    Returns:
        Grey levels 0 to 255 in the shape of `stored`.
    """
    if stored.dtype.name in _TABLE_TYPES:
        table = _table(display, window, stored.dtype.name)
        # Taking from a table by the bits of the value: signed types see their own table.
        return table.take(stored.view(f"u{stored.dtype.itemsize}"), mode="clip")
    return _shown(stored.astype(np.float64), display, window)


def render_full_range(stored: Stored, *, is_inverted: bool) -> Grey:
    """Stretch minimum to maximum, as Orthanc's `/preview` does.

    A frame of one value is black, white when inverted.

    Args:
        stored: Stored values, two dimensions.
        is_inverted: MONOCHROME1.

    Returns:
        Grey levels 0 to 255 in the shape of `stored`.
    """
    values = stored if stored.dtype.name in _TABLE_TYPES else stored.astype(np.float64)
    low, high, _, _ = cv2.minMaxLoc(values)
    grey = np.zeros(stored.shape, np.uint8)
    if high > low:
        cv2.normalize(values, grey, 0, _WHITE, cv2.NORM_MINMAX, cv2.CV_8U)
    return np.asarray(cv2.bitwise_not(grey), np.uint8) if is_inverted else grey


def windowed(values: FloatArray, window: Window) -> FloatArray:
    """Apply a VOI window function (PS3.3 C.11.2.1.2 and C.11.2.1.3).

    Args:
        values: Output values of the modality LUT.
        window: The window.

    Returns:
        Values from 0.0 to 1.0.
    """
    center, width = window.center, window.width
    if window.function is VoiFunction.SIGMOID:
        # Beyond +-700 the exponential overflows and the result is 0 or 1 long before.
        return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - center) / width, -700, 700)))
    if window.function is VoiFunction.LINEAR_EXACT:
        return np.clip((values - center) / width + 0.5, 0.0, 1.0)
    if width <= 1.0:
        # PS3.3 C.11.2.1.2.1: a width of 1 is a threshold.
        return (values > center - 0.5).astype(np.float64)
    return np.clip((values - (center - 0.5)) / (width - 1.0) + 0.5, 0.0, 1.0)


@lru_cache(maxsize=_TABLES)
def _table(display: Display, window: Window | None, type_name: str) -> Grey:
    bits = np.dtype(type_name).itemsize * 8
    unsigned = np.arange(1 << bits, dtype=f"u{bits // 8}")
    table = _shown(unsigned.view(type_name).astype(np.float64), display, window)
    table.flags.writeable = False
    return table


def _shown(values: FloatArray, display: Display, window: Window | None) -> Grey:
    rescaled = (
        display.modality_lut.apply(values)
        if display.modality_lut is not None
        else values * display.rescale_slope + display.rescale_intercept
    )
    shown = _voi(rescaled, display, window)
    if display.is_inverted:
        shown = 1.0 - shown
    return np.rint(shown * _WHITE).astype(np.uint8)


def _voi(values: FloatArray, display: Display, window: Window | None) -> FloatArray:
    if window is None and display.voi_lut is not None:
        return display.voi_lut.apply(values) / float((1 << display.voi_lut.bits) - 1)
    chosen = window or display.window
    if chosen is None:
        raise ValueError("neither the caller nor the file names a window")
    return windowed(values, chosen)
