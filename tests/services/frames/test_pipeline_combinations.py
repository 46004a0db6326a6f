"""2,000 combinations of bits, signs, slopes, windows and colours beside pydicom's arithmetic."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.pixels.processing import convert_color_space

from services.dicom.display import FrameDisplay, PixelDescription, VoiFunction, Window
from services.frames.decoding import decode_frame
from services.frames.pixels import picture
from services.frames.variant import FrameVariant
from tests.pydicom_pictures import grey_levels

_SYNTAXES = {"<": "1.2.840.10008.1.2.1", ">": "1.2.840.10008.1.2.2"}
_fixed = settings(
    max_examples=1_500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


def rounded(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, allow_infinity=False).map(
        lambda number: round(number, 3)
    )


@st.composite
def descriptions(draw: st.DrawFn) -> PixelDescription:
    allocated = draw(st.sampled_from([8, 16, 32]))
    stored = draw(st.integers(1, allocated))
    high_bit = draw(st.integers(stored - 1, allocated - 1))
    return PixelDescription(
        transfer_syntax_uid=_SYNTAXES[draw(st.sampled_from("<>"))],
        rows=5,
        columns=7,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high_bit,
        is_signed=draw(st.booleans()),
        photometric_interpretation=draw(st.sampled_from(["MONOCHROME1", "MONOCHROME2"])),
    )


@st.composite
def windows(draw: st.DrawFn) -> Window:
    function = draw(st.sampled_from(list(VoiFunction)))
    # pydicom refuses LINEAR widths below 1.
    width = draw(rounded(1.0 if function is VoiFunction.LINEAR else 0.01, 5_000.0))
    return Window(draw(rounded(-5_000.0, 5_000.0)), width, function)


@pytest.mark.no_cover
@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # of pydicom's SIGMOID
@_fixed
@given(
    description=descriptions(),
    slope=rounded(-4.0, 4.0).filter(bool),
    intercept=rounded(-2_000.0, 2_000.0),
    window=st.none() | windows(),
    explicit=st.none() | st.tuples(rounded(-3_000.0, 3_000.0), rounded(1.0, 4_000.0)),
    is_full_range=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_grey_values_are_shown_as_pydicom_shows_them(
    *,
    description: PixelDescription,
    slope: float,
    intercept: float,
    window: Window | None,
    explicit: tuple[float, float] | None,
    is_full_range: bool,
    seed: int,
) -> None:
    values = stored_values(description, seed)
    decoded = decode_frame(as_stored(values, description, seed), description)
    display = FrameDisplay(
        is_inverted=description.photometric_interpretation == "MONOCHROME1",
        rescale_slope=slope,
        rescale_intercept=intercept,
        windows=() if window is None else (window,),
    )
    variant = FrameVariant(full_range=True) if is_full_range else FrameVariant(*(explicit or ()))
    ours = picture(decoded, description, display, variant).astype(int)
    theirs = grey_levels(values, dataset_of(description, slope, intercept, window), variant)
    assert np.abs(ours - theirs).max() <= 1


def stored_values(description: PixelDescription, seed: int) -> npt.NDArray[Any]:
    """Return values that the stored bits can hold, the smallest and the largest among them."""
    stored = description.bits_stored
    low = -(1 << (stored - 1)) if description.is_signed else 0
    shape = (description.rows, description.columns)
    values = np.random.default_rng(seed).integers(low, low + (1 << stored), shape)
    values[0, :2] = low, low + (1 << stored) - 1
    kind = "i" if description.is_signed else "u"
    return values.astype(f"{kind}{description.bits_allocated // 8}")


def as_stored(values: npt.NDArray[Any], description: PixelDescription, seed: int) -> bytes:
    """Return values as they are in a file, with garbage beside their bits."""
    allocated, stored = description.bits_allocated, description.bits_stored
    shift = description.high_bit + 1 - stored
    mask = ((1 << stored) - 1) << shift
    garbage = np.random.default_rng(seed).integers(0, 1 << allocated, values.shape) & ~mask
    words = ((values.astype(np.int64) << shift) & mask) | garbage
    order = ">" if description.is_big_endian else "<"
    return words.astype(f"{order}u{allocated // 8}").tobytes()


def dataset_of(
    description: PixelDescription, slope: float, intercept: float, window: Window | None
) -> Dataset:
    dataset = Dataset()
    dataset.PhotometricInterpretation = description.photometric_interpretation
    dataset.BitsAllocated, dataset.BitsStored = description.bits_allocated, description.bits_stored
    dataset.PixelRepresentation = int(description.is_signed)
    dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
    if window is not None:
        dataset.WindowCenter, dataset.WindowWidth = window.center, window.width
        dataset.VOILUTFunction = window.function.value
    return dataset


@pytest.mark.no_cover
@settings(_fixed, max_examples=500)
@given(
    photometric_interpretation=st.sampled_from(["RGB", "YBR_FULL", "YBR_FULL_422"]),
    planar_configuration=st.sampled_from([0, 1]),
    seed=st.integers(0, 2**32 - 1),
)
def test_colours_are_shown_as_pydicom_shows_them(
    photometric_interpretation: str, planar_configuration: int, seed: int
) -> None:
    colours = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    stored = colours
    if photometric_interpretation == "YBR_FULL_422":
        colours[:, 1::2, 1:] = colours[:, ::2, 1:]
        parts = colours[:, ::2, 0], colours[:, 1::2, 0], colours[:, ::2, 1], colours[:, ::2, 2]
        stored = np.stack(parts, axis=2)
    elif planar_configuration:
        stored = np.moveaxis(colours, 2, 0)
    description = PixelDescription(
        transfer_syntax_uid=_SYNTAXES["<"],
        rows=6,
        columns=8,
        samples_per_pixel=3,
        bits_allocated=8,
        bits_stored=8,
        high_bit=7,
        planar_configuration=planar_configuration,
        photometric_interpretation=photometric_interpretation,
    )
    decoded = decode_frame(stored.tobytes(), description)
    ours = picture(decoded, description, FrameDisplay(), FrameVariant())[..., ::-1].astype(int)
    theirs = convert_color_space(colours, photometric_interpretation, "RGB").astype(int)
    assert np.abs(ours - theirs).max() <= 1
