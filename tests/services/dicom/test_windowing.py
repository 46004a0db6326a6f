from functools import partial

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.pixels.processing import apply_modality_lut, apply_windowing

from services.dicom.display import (
    Display,
    DisplayHeader,
    LookupTable,
    VoiFunction,
    Window,
    make_window,
    read_lookup_table,
    render_full_range,
    render_window,
    windowed,
)

FUNCTIONS = list(VoiFunction)


def test_linear_follows_the_example_of_the_standard() -> None:
    # PS3.3 C.11.2.1.2.1: for center 2048 and width 4096 black ends at 0 and white begins at 4095.
    values = np.array([-1.0, 0.0, 2047.5, 4095.0, 4096.0])
    assert windowed(values, Window(2048, 4096)).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]


def test_a_linear_width_of_one_is_a_threshold() -> None:
    assert windowed(np.array([39.0, 39.5, 40.0]), Window(40, 1)).tolist() == [0.0, 0.0, 1.0]


def test_linear_exact_reaches_both_ends_of_the_window() -> None:
    window = Window(0, 10, VoiFunction.LINEAR_EXACT)
    assert windowed(np.array([-5.0, 0.0, 5.0, 9.0]), window).tolist() == [0.0, 0.5, 1.0, 1.0]


def test_sigmoid_is_half_at_its_center_and_never_overflows() -> None:
    window = Window(0, 1, VoiFunction.SIGMOID)
    assert windowed(np.array([-1e9, 0.0, 1e9]), window) == pytest.approx([0.0, 0.5, 1.0])


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "examples_overlay.dcm"])
@pytest.mark.parametrize(("center", "width"), [(40.0, 400.0), (600.0, 1600.0), (-100.0, 50.5)])
def test_windows_agree_with_pydicom_within_one_grey_level(
    name: str, center: float, width: float, function: VoiFunction
) -> None:
    dataset = dcmread(str(get_testdata_file(name)))
    display = Display(
        rescale_slope=float(dataset.get("RescaleSlope", 1)),
        rescale_intercept=float(dataset.get("RescaleIntercept", 0)),
    )
    ours = render_window(dataset.pixel_array, display, Window(center, width, function))
    dataset.WindowCenter, dataset.WindowWidth = center, width
    dataset.VOILUTFunction = function.value
    rescaled = apply_modality_lut(dataset.pixel_array, dataset)
    theirs = apply_windowing(rescaled, dataset).astype(np.float64)
    low, high = pydicom_range(dataset)
    assert np.abs(ours - (theirs - low) / (high - low) * 255).max() <= 1


def pydicom_range(dataset: Dataset) -> tuple[float, float]:
    """The output range that pydicom documents for `apply_windowing`."""
    bits = int(dataset.BitsStored)
    low, high = (
        (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        if dataset.PixelRepresentation
        else (0, 2**bits - 1)
    )
    slope, intercept = dataset.get("RescaleSlope", 1), dataset.get("RescaleIntercept", 0)
    return low * float(slope) + float(intercept), high * float(slope) + float(intercept)


def test_a_modality_lut_sequence_agrees_with_pydicom() -> None:
    path = str(get_testdata_file("mlut_18.dcm"))
    dataset = dcmread(path)
    display = header_display(path)
    assert display.modality_lut is not None
    theirs = apply_modality_lut(dataset.pixel_array, dataset)
    ours = display.modality_lut.apply(dataset.pixel_array.astype(np.float64))
    assert np.array_equal(ours, theirs)


def test_a_voi_lut_sequence_is_shown_by_its_entries() -> None:
    path = str(get_testdata_file("vlut_04.dcm"))
    dataset = dcmread(path)
    display = header_display(path)
    assert display.has_voi
    item = dataset.VOILUTSequence[0]
    count, first, bits = item.LUTDescriptor
    table = np.asarray(
        np.frombuffer(item.LUTData, "<u2") if isinstance(item.LUTData, bytes) else item.LUTData
    )
    expected = table[np.clip(dataset.pixel_array.astype(int) - first, 0, (count or 65536) - 1)]
    ours = render_window(dataset.pixel_array, display)
    assert np.abs(ours - expected / (2**bits - 1) * 255).max() <= 1


def header_display(path: str) -> Display:
    with open(path, "rb") as file:  # noqa: PTH123  # the path is pydicom's text
        return DisplayHeader(file.read()).frame(0)


@pytest.mark.parametrize("type_name", ["uint8", "int8", "uint16", "int16"])
@pytest.mark.parametrize("is_inverted", [False, True])
def test_the_table_and_the_plain_way_agree_on_every_value(
    type_name: str, is_inverted: bool
) -> None:
    info = np.iinfo(type_name)
    values = np.arange(info.min, info.max + 1).astype(type_name)
    display = Display(is_inverted=is_inverted, rescale_slope=1.5, rescale_intercept=-10)
    render = partial(render_window, display=display, window=Window(7, 99))
    assert np.array_equal(render(values), render(values.astype(np.int32)))


def test_monochrome1_is_the_negative_of_monochrome2() -> None:
    values = np.arange(256, dtype=np.uint8)
    window = Window(100, 50)
    plain = render_window(values, Display(), window).astype(int)
    inverted = render_window(values, Display(is_inverted=True), window)
    assert np.abs(255 - plain - inverted).max() <= 1


@pytest.mark.parametrize("type_name", ["uint8", "int16", "uint16", "int32", "uint32", "float32"])
def test_full_range_stretches_minimum_to_maximum(type_name: str) -> None:
    values = np.array([[10, 35], [61, 110]], dtype=type_name)
    assert render_full_range(values, is_inverted=False).tolist() == [[0, 64], [130, 255]]
    assert render_full_range(values, is_inverted=True).tolist() == [[255, 191], [125, 0]]


def test_a_frame_of_one_value_is_black() -> None:
    values = np.full((2, 2), 7, dtype=np.int16)
    assert render_full_range(values, is_inverted=False).max() == 0
    assert render_full_range(values, is_inverted=True).min() == 255


def test_neither_window_nor_lut_is_a_fault_of_the_caller() -> None:
    with pytest.raises(ValueError, match="neither"):
        render_window(np.zeros((1, 1), np.uint8), Display())


@pytest.mark.parametrize(
    ("center", "width", "function", "expected"),
    [
        (1.0, 2.0, None, Window(1, 2)),
        (1.0, 2.0, " sigmoid ", Window(1, 2, VoiFunction.SIGMOID)),
        (1.0, 2.0, "CURVED", Window(1, 2)),
        (None, 2.0, None, None),
        (1.0, 0.0, None, None),
    ],
)
def test_incomplete_windows_are_none(
    center: float | None, width: float | None, function: str | None, expected: Window | None
) -> None:
    assert make_window(center, width, function) == expected


def test_lookup_tables_clamp_at_both_ends() -> None:
    table = read_lookup_table((3, 65_534, 16), [10, 20, 30], is_signed=True)
    assert table == LookupTable(-2, 16, b"\x0a\0\x14\0\x1e\0")
    assert table.apply(np.array([-9.0, -2.0, -1.0, 0.0, 9.0])).tolist() == [10, 10, 20, 30, 30]


def test_two_entries_may_share_a_word() -> None:
    table = read_lookup_table((4, 0, 8), bytes([1, 2, 3, 4]), is_signed=False)
    assert table is not None
    assert table.apply(np.arange(4.0)).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("descriptor", [(4, 0, 16), (0, 0, 16), (3, 0, 40)])
def test_tables_shorter_than_they_say_are_no_tables(descriptor: tuple[int, int, int]) -> None:
    assert read_lookup_table(descriptor, [1, 2, 3], is_signed=False) is None
