"""From the samples of a frame to a picture of 8 bits: grey levels or colours.

The order is that of the standard (PS3.4 N.2): stored bits, modality LUT, VOI LUT or window,
presentation; or palette; or conversion of colours.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from services.dicom.display import (
    PALETTE_COLOR,
    FrameDisplay,
    PixelDescription,
    VoiFunction,
    Window,
)
from services.dicom.lookup_tables import Palette
from services.errors import FrameNotRenderable
from services.frames.decoding import YBR_FULL, DecodedFrame, SampleBits
from services.frames.encoding import Picture
from services.frames.variant import FrameVariant

FloatArray = npt.NDArray[np.float64]

_WHITE = 255
_TABLES = 64
"""Display tables kept: 64 KiB each, one per set of attributes and window in use."""

_TABLE_BYTES = 2
"""Words of so many bytes are shown by a table of all their values."""

_BLOCK_PIXELS = 1 << 20
"""Larger words are computed so many at a time, in 8 MiB of memory for each step."""

_BYTE_BITS = 8
_COLOUR_DIMENSIONS = 3


def picture(
    decoded: DecodedFrame,
    description: PixelDescription,
    display: FrameDisplay,
    variant: FrameVariant,
) -> Picture:
    """Turn the samples of a frame into a picture.

    Args:
        decoded: The samples.
        description: How the instance stores its frames.
        display: The display attributes of the frame.
        variant: How to show it.

    Returns:
        Rows x columns, or rows x columns x 3 in OpenCV's order (blue first).

    Raises:
        FrameNotRenderable: The palette is missing.
    """
    if decoded.samples.ndim == _COLOUR_DIMENSIONS:
        shown = _colours(decoded)
    elif description.photometric_interpretation == PALETTE_COLOR:
        shown = _palette_colours(decoded, description.palette)
    else:
        shown = grey_levels(decoded, display, variant)
    return fitted(shown, variant.max_size)


def fitted(shown: Picture, max_size: int | None) -> Picture:
    """Shrink a picture until its longest side is `max_size` pixels; smaller ones stay."""
    rows, columns = shown.shape[:2]
    longest = max(rows, columns)
    if max_size is None or longest <= max_size:
        return shown
    size = (max(1, round(columns * max_size / longest)), max(1, round(rows * max_size / longest)))
    return np.asarray(cv2.resize(shown, size, interpolation=cv2.INTER_AREA), np.uint8)


def grey_levels(decoded: DecodedFrame, display: FrameDisplay, variant: FrameVariant) -> Picture:
    """Show the stored values of one sample per pixel.

    A frame without window and VOI LUT is shown by its full range: its smallest output value of the
    modality LUT is black and its largest white; a frame of one value is black. MONOCHROME1 is the
    other way round.

    Args:
        decoded: Samples of two dimensions.
        display: The display attributes of the frame.
        variant: A window replaces the window and the VOI LUT of the file.
    """
    window = explicit_window(variant, display)
    if variant.full_range or (window is None and not display.voi_luts and not display.windows):
        return _full_range(decoded, display)
    samples = decoded.samples
    if samples.dtype.kind == "u" and samples.dtype.itemsize <= _TABLE_BYTES:
        table = _table(display, window, decoded.bits, samples.dtype.itemsize)
        return table.take(cast("npt.NDArray[np.uint16]", samples), mode="clip")
    return _in_blocks(samples, lambda words: _levels(_values(words, decoded.bits), display, window))


def explicit_window(variant: FrameVariant, display: FrameDisplay) -> Window | None:
    """Return the window that a variant names, None when it names none.

    The function of the file shapes the window of the caller too (PS3.3 C.11.2.1.3).
    """
    if variant.window_center is None or variant.window_width is None:
        return None
    function = display.windows[0].function if display.windows else VoiFunction.LINEAR
    return Window(variant.window_center, variant.window_width, function)


def windowed(values: FloatArray, window: Window) -> FloatArray:
    """Apply a VOI window function (PS3.3 C.11.2.1.2 and C.11.2.1.3).

    LINEAR is defined for widths of 1 and more; below it the ramp of LINEAR_EXACT is shown, which
    is what files of small values (dose, SUV, ADC) mean.

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
    if window.function is VoiFunction.LINEAR_EXACT or width < 1.0:
        return np.clip((values - center) / width + 0.5, 0.0, 1.0)
    if width == 1.0:
        # PS3.3 C.11.2.1.2.1: a width of 1 is a threshold.
        return (values > center - 0.5).astype(np.float64)
    return np.clip((values - (center - 0.5)) / (width - 1.0) + 0.5, 0.0, 1.0)


@lru_cache(maxsize=_TABLES)
def _table(
    display: FrameDisplay, window: Window | None, bits: SampleBits, word_bytes: int
) -> Picture:
    """Return the grey level of every word."""
    words = np.arange(1 << word_bytes * _BYTE_BITS, dtype=f"u{word_bytes}")
    table = _levels(_values(words, bits), display, window)
    table.flags.writeable = False
    return table


def stored_values(words: npt.NDArray[Any], bits: SampleBits) -> npt.NDArray[Any]:
    """Return the stored values of words: their used bits alone, with their sign.

    What stands beside them, such as overlays, is not part of a value (PS3.5 8.1.1).

    Args:
        words: Unsigned integers; floating-point numbers are returned as they are.
        bits: Which bits count.
    """
    if words.dtype.kind == "f":
        return words
    native = words.astype(words.dtype.newbyteorder("="), copy=False)
    word_bits = native.dtype.itemsize * _BYTE_BITS
    above = word_bits - bits.shift - bits.stored
    if above:
        native = np.left_shift(native, native.dtype.type(above))
    values = native.view(f"{'i' if bits.is_signed else 'u'}{native.dtype.itemsize}")
    below = word_bits - bits.stored
    return np.right_shift(values, values.dtype.type(below)) if below else values


def _values(words: npt.NDArray[Any], bits: SampleBits) -> FloatArray:
    values: FloatArray = stored_values(words, bits).astype(np.float64)
    if words.dtype.kind == "f":
        # What is no number is shown as the smallest one.
        np.nan_to_num(values, copy=False, nan=-np.inf)
        np.clip(values, -_HUGE, _HUGE, out=values)
    return values


_HUGE = 1e300
"""Beyond it, differences of values are infinite."""


def modality_values(words: npt.NDArray[Any], bits: SampleBits, display: FrameDisplay) -> FloatArray:
    """Return the output values of the modality LUT (PS3.3 C.11.1), such as Hounsfield units.

    Args:
        words: Samples as decoded.
        bits: Which of their bits count.
        display: The display attributes of the frame.
    """
    values: FloatArray = stored_values(words, bits).astype(np.float64)
    return _rescaled(values, display)


def _rescaled(values: FloatArray, display: FrameDisplay) -> FloatArray:
    """Apply the modality LUT (PS3.3 C.11.1)."""
    if display.modality_lut is not None:
        return display.modality_lut.apply(values)
    return values * display.rescale_slope + display.rescale_intercept


def _levels(values: FloatArray, display: FrameDisplay, window: Window | None) -> Picture:
    rescaled = _rescaled(values, display)
    if window is None and display.voi_luts:
        table = display.voi_luts[0]
        shown = table.apply(rescaled) / table.maximum
    else:
        shown = windowed(rescaled, window or display.windows[0])
    if display.is_inverted:
        shown = 1.0 - shown
    return np.rint(shown * _WHITE).astype(np.uint8)


def _full_range(decoded: DecodedFrame, display: FrameDisplay) -> Picture:
    values = stored_values(decoded.samples, decoded.bits)
    is_inverted = display.is_inverted
    if display.modality_lut is not None:
        values = _in_blocks(values, display.modality_lut.apply, np.float32)
    elif display.rescale_slope < 0:
        is_inverted = not is_inverted
    shown = _stretched(np.ascontiguousarray(values))
    # Of one value alone, a falling slope does not say that it is bright.
    if is_inverted if shown.any() else display.is_inverted:
        return np.asarray(cv2.bitwise_not(shown), np.uint8)
    return shown


def _stretched(values: npt.NDArray[Any]) -> Picture:
    """Stretch the minimum to 0 and the maximum to 255; one value alone is 0."""
    grey = np.zeros(values.shape, np.uint8)
    if values.dtype.name in _OPENCV_TYPES:
        low, high, _, _ = cv2.minMaxLoc(values)
        if high > low:
            cv2.normalize(values, grey, 0, _WHITE, cv2.NORM_MINMAX, cv2.CV_8U)
        return grey
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if not finite.size:
        return grey
    low, high = float(finite.min()), float(finite.max())
    if not low < high:
        return grey
    scale = _WHITE / (high - low)
    return _in_blocks(
        values,
        lambda block: np.rint(
            (np.clip(np.nan_to_num(block.astype(np.float64), nan=low), low, high) - low) * scale
        ),
    )


_OPENCV_TYPES = ("uint8", "int8", "uint16", "int16")
"""What OpenCV normalises exactly."""


def _in_blocks(
    values: npt.NDArray[Any],
    compute: Callable[[npt.NDArray[Any]], npt.NDArray[Any]],
    kind: type[Any] = np.uint8,
) -> npt.NDArray[Any]:
    """Compute a frame of two dimensions in blocks of rows: eight bytes a pixel add up."""
    rows, columns = values.shape
    step = max(1, _BLOCK_PIXELS // max(1, columns))
    out = np.empty(values.shape, kind)
    for start in range(0, rows, step):
        out[start : start + step] = compute(values[start : start + step])
    return out


def _palette_colours(decoded: DecodedFrame, palette: Palette | None) -> Picture:
    """Look the stored values up (PS3.3 C.7.6.3.1.5); those outside take the nearest entry."""
    if palette is None:
        raise FrameNotRenderable("The palette of this instance is missing or damaged.")
    colours = np.frombuffer(palette.entries, np.uint8).reshape(-1, 3)[:, ::-1]
    index = stored_values(decoded.samples, decoded.bits).astype(np.int64) - palette.first_mapped
    return np.ascontiguousarray(colours.take(index, axis=0, mode="clip"))


def _colours(decoded: DecodedFrame) -> Picture:
    values = stored_values(decoded.samples, decoded.bits)
    is_ybr = decoded.colour_space == YBR_FULL
    if values.dtype.kind != "f" and decoded.bits.stored > _BYTE_BITS:
        values = values >> values.dtype.type(decoded.bits.stored - _BYTE_BITS)
    elif decoded.bits.stored < _BYTE_BITS:
        largest = (1 << decoded.bits.stored) - 1
        values = np.rint(values * (_WHITE / largest))
    bytes_ = np.ascontiguousarray(np.clip(values, 0, _WHITE).astype(np.uint8, copy=False))
    if not is_ybr:
        return np.asarray(cv2.cvtColor(bytes_, cv2.COLOR_RGB2BGR), np.uint8)
    # OpenCV's third and second channel change places (PS3.3 C.7.6.3.1.2: Y, Cb, Cr).
    swapped = np.ascontiguousarray(bytes_[:, :, [0, 2, 1]])
    return np.asarray(cv2.cvtColor(swapped, cv2.COLOR_YCrCb2BGR), np.uint8)
