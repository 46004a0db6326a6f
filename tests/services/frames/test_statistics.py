import numpy as np
import pytest

from services.dicom.display import FrameDisplay, PixelDescription
from services.errors import InvalidInput
from services.frames.statistics import Ellipse, RegionStatistics, measure

_DESCRIPTION = PixelDescription(
    transfer_syntax_uid="1.2.840.10008.1.2.4.70",
    rows=20,
    columns=30,
    bits_stored=12,
    high_bit=11,
)
"""Encapsulated: what is measured is decoded all the same."""

_HOUNSFIELD = FrameDisplay(rescale_intercept=-1024.0)


def _frame() -> np.ndarray[tuple[int, int], np.dtype[np.uint16]]:
    stored = np.full((20, 30), 24, "<u2")
    stored[5:11, 10:20] = 1124
    return stored


def _measured(ellipse: Ellipse, description: PixelDescription = _DESCRIPTION) -> object:
    return measure(_frame().tobytes(), description, _HOUNSFIELD, ellipse)


def test_values_are_those_of_the_modality_lut() -> None:
    assert _measured(Ellipse(15, 8, 3, 2)) == RegionStatistics(100.0, 0.0, 100.0, 100.0, 20)


def test_pixels_count_whose_centres_lie_inside() -> None:
    found = measure(_frame().tobytes(), _DESCRIPTION, _HOUNSFIELD, Ellipse(10, 8, 1, 1))
    assert found == RegionStatistics(-450.0, 550.0, -1000.0, 100.0, 4)


@pytest.mark.parametrize("radius", [0.0, 0.2])
def test_a_small_ellipse_is_the_pixel_it_is_on(radius: float) -> None:
    found = _measured(Ellipse(10.9, 5.1, radius, radius))
    assert found == RegionStatistics(100.0, 0.0, 100.0, 100.0, 1)


def test_what_lies_beside_the_frame_does_not_count() -> None:
    assert _measured(Ellipse(-1, -1, 2.5, 2.5)) == RegionStatistics(
        -1000.0, 0.0, -1000.0, -1000.0, 1
    )
    assert _measured(Ellipse(100, 8, 3, 3)) is None


def test_overlays_beside_the_used_bits_do_not_count() -> None:
    stored = _frame() | np.uint16(0x8000)
    found = measure(stored.tobytes(), _DESCRIPTION, _HOUNSFIELD, Ellipse(15, 8, 3, 2))
    assert found == RegionStatistics(100.0, 0.0, 100.0, 100.0, 20)


def test_colours_have_no_values() -> None:
    colours = PixelDescription(
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        rows=20,
        columns=10,
        samples_per_pixel=3,
        photometric_interpretation="RGB",
    )
    assert _measured(Ellipse(5, 5, 2, 2), colours) is None


@pytest.mark.parametrize(
    "numbers", [(float("nan"), 1, 1, 1), (1, 1, -1, 1), (1, 1e9, 1, 1), (1, 1, 1, float("inf"))]
)
def test_an_ellipse_needs_numbers_that_mean_something(
    numbers: tuple[float, float, float, float],
) -> None:
    with pytest.raises(InvalidInput):
        Ellipse(*numbers)
