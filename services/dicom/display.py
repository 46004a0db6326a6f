"""Display attributes of a header, for files that need more than what is indexed."""

import io
import threading
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmread
from pydicom.multival import MultiValue

from services.dicom.values import parse_float

FloatArray = npt.NDArray[np.float64]

_ENTRIES_FOR_ZERO = 65_536
"""PS3.3 C.11.1.1.1: zero entries stand for 2^16, which 16 bits can't say."""

_BYTE_BITS = 8


@dataclass(frozen=True, slots=True)
class LookupTable:
    """One LUT: hashable, so that what is built from it can be cached.

    Attributes:
        first_mapped: Input value of the first entry.
        bits: Bits of an entry, 8 to 16: the output range is 0 to 2^bits - 1.
        entries: Output values, as bytes of little-endian unsigned 16-bit numbers.
    """

    first_mapped: int
    bits: int
    entries: bytes

    def apply(self, values: FloatArray) -> FloatArray:
        """Map values; those outside take the first or last entry (PS3.3 C.11.2.1.1)."""
        table = np.frombuffer(self.entries, dtype="<u2").astype(np.float64)
        index = np.clip(np.rint(values) - self.first_mapped, 0, table.size - 1)
        mapped: FloatArray = table[index.astype(np.int64)]
        return mapped


def read_lookup_table(
    descriptor: tuple[int, int, int], data: bytes | list[int], *, is_signed: bool
) -> LookupTable | None:
    """Read LUTDescriptor and LUTData.

    Args:
        descriptor: Number of entries, first mapped value, bits of an entry.
        data: LUTData as OW bytes (little-endian) or as numbers.
        is_signed: The input values are signed: so is the first mapped value.

    Returns:
        The table; None when it is empty or shorter than its descriptor says.
    """
    declared, first_mapped, bits = descriptor
    count = declared or _ENTRIES_FOR_ZERO
    entries = _entries(data, count)
    if entries.size < count or not _BYTE_BITS <= bits <= 2 * _BYTE_BITS:
        return None
    if is_signed and first_mapped >= _ENTRIES_FOR_ZERO // 2:
        first_mapped -= _ENTRIES_FOR_ZERO
    return LookupTable(first_mapped, bits, entries[:count].astype("<u2").tobytes())


def _entries(data: bytes | list[int], count: int) -> npt.NDArray[np.uint16]:
    if not isinstance(data, bytes):
        return np.asarray([number & 0xFFFF for number in data], dtype=np.uint16)
    # Two 8-bit entries may share one 16-bit word (PS3.3 C.11.1.1.1).
    is_packed = len(data) < 2 * count
    return np.frombuffer(data, dtype="u1" if is_packed else "<u2").astype(np.uint16)


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


class DisplayHeader:
    """The header of one file, from which each frame's display attributes are read; by any thread.

    pydicom parses sequences when they are first used: then `frame` takes long.
    """

    def __init__(self, header: bytes) -> None:
        """Parse a file's bytes up to its PixelData; a cut end is no fault.

        Raises:
            InvalidDicomError: The bytes are no DICOM file.
        """
        self._dataset = dcmread(io.BytesIO(header), stop_before_pixels=True, force=True)
        self._parsing = threading.Lock()

    def frame(self, frame_index: int) -> Display:
        """Return the display attributes of a frame, 0-based.

        Functional groups (PS3.3 C.7.6.16) go before the attributes of the dataset, a frame's own
        group before the shared one.
        """
        with self._parsing:
            return self._frame(frame_index)

    def _frame(self, frame_index: int) -> Display:
        dataset = self._dataset
        is_signed = dataset.get("PixelRepresentation") == 1
        rescale = self._group(frame_index, "PixelValueTransformationSequence") or dataset
        voi = self._group(frame_index, "FrameVOILUTSequence") or dataset
        return Display(
            is_inverted=dataset.get("PhotometricInterpretation") == "MONOCHROME1",
            rescale_slope=_number(rescale, "RescaleSlope") or 1.0,
            rescale_intercept=_number(rescale, "RescaleIntercept") or 0.0,
            modality_lut=_lookup_table(dataset, "ModalityLUTSequence", is_signed=is_signed),
            window=_window(voi),
            voi_lut=_lookup_table(voi, "VOILUTSequence", is_signed=is_signed),
        )

    def _group(self, frame_index: int, keyword: str) -> Dataset | None:
        per_frame = self._dataset.get("PerFrameFunctionalGroupsSequence") or []
        shared = self._dataset.get("SharedFunctionalGroupsSequence") or []
        for group in (*per_frame[frame_index : frame_index + 1], *shared[:1]):
            if items := group.get(keyword):
                item: Dataset = items[0]
                return item
        return None


def _window(dataset: Dataset) -> Window | None:
    return make_window(
        _number(dataset, "WindowCenter"),
        _number(dataset, "WindowWidth"),
        dataset.get("VOILUTFunction"),
    )


def make_window(center: float | None, width: float | None, function: str | None) -> Window | None:
    """Return a window, None when it is incomplete or its width means nothing."""
    if center is None or width is None or width <= 0:
        return None
    return Window(center, width, VoiFunction.of(function))


def _number(dataset: Dataset, keyword: str) -> float | None:
    value = dataset.get(keyword)
    if isinstance(value, MultiValue):
        value = value[0] if value else None
    return None if value is None else parse_float(str(value))


def _lookup_table(dataset: Dataset, keyword: str, *, is_signed: bool) -> LookupTable | None:
    items = dataset.get(keyword)
    if not items:
        return None
    descriptor, data = items[0].get("LUTDescriptor"), items[0].get("LUTData")
    if descriptor is None or len(descriptor) != 3 or data is None:  # noqa: PLR2004  # PS3.3 C.11.1.1.1
        return None
    count, first_mapped, bits = (int(value) for value in descriptor)
    content = bytes(data) if isinstance(data, bytes) else [int(number) for number in data]
    return read_lookup_table((count, first_mapped, bits), content, is_signed=is_signed)
