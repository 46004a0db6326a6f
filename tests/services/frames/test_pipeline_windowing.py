import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.pixels.processing import apply_modality_lut, apply_windowing

from services.dicom.display import (
    DisplayHeader,
    FrameDisplay,
    VoiFunction,
    Window,
    make_windows,
)
from services.dicom.lookup_tables import InputRange, LookupTable, read_lookup_table
from services.frames.decoding import DecodedFrame, SampleBits, Samples
from services.frames.encoding import Picture
from services.frames.pixels import grey_levels, windowed
from services.frames.variant import FrameVariant

DEFAULT = FrameVariant()
FUNCTIONS = list(VoiFunction)
WORDS = InputRange(0, 65_535)


def shown(stored: Samples, display: FrameDisplay, variant: FrameVariant = DEFAULT) -> Picture:
    """Show stored values whose bits are all used."""
    kind = stored.dtype.kind
    words = stored.view(f"u{stored.dtype.itemsize}") if kind == "i" else stored
    decoded = DecodedFrame(words, SampleBits(stored.dtype.itemsize * 8, is_signed=kind == "i"))
    return grey_levels(decoded, display, variant)


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
    display = FrameDisplay(
        rescale_slope=float(dataset.get("RescaleSlope", 1)),
        rescale_intercept=float(dataset.get("RescaleIntercept", 0)),
        windows=(Window(center, width, function),),
    )
    ours = shown(dataset.pixel_array, display)
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
    assert display.voi_luts
    item = dataset.VOILUTSequence[0]
    count, first, bits = item.LUTDescriptor
    table = np.asarray(
        np.frombuffer(item.LUTData, "<u2") if isinstance(item.LUTData, bytes) else item.LUTData
    )
    expected = table[np.clip(dataset.pixel_array.astype(int) - first, 0, (count or 65536) - 1)]
    ours = shown(dataset.pixel_array, display)
    assert np.abs(ours - expected / (2**bits - 1) * 255).max() <= 1


def header_display(path: str) -> FrameDisplay:
    with open(path, "rb") as file:  # noqa: PTH123  # the path is pydicom's text
        return DisplayHeader(file.read()).frame(0)


@pytest.mark.parametrize("type_name", ["uint8", "int8", "uint16", "int16"])
@pytest.mark.parametrize("is_inverted", [False, True])
def test_the_table_and_the_plain_way_agree_on_every_value(
    type_name: str, is_inverted: bool
) -> None:
    info = np.iinfo(type_name)
    values = np.arange(info.min, info.max + 1).astype(type_name)
    window = Window(7, 99)
    display = FrameDisplay(
        is_inverted=is_inverted, rescale_slope=1.5, rescale_intercept=-10, windows=(window,)
    )
    assert np.array_equal(shown(values, display), shown(values[None].astype(np.int32), display)[0])


def test_monochrome1_is_the_negative_of_monochrome2() -> None:
    values = np.arange(256, dtype=np.uint8)
    windows = (Window(100, 50),)
    plain = shown(values, FrameDisplay(windows=windows)).astype(int)
    inverted = shown(values, FrameDisplay(is_inverted=True, windows=windows))
    assert np.abs(255 - plain - inverted).max() <= 1


@pytest.mark.parametrize("type_name", ["uint8", "int16", "uint16", "int32", "uint32", "float32"])
def test_full_range_stretches_minimum_to_maximum(type_name: str) -> None:
    values = np.array([[10, 35], [61, 110]], dtype=type_name)
    assert shown(values, FrameDisplay()).tolist() == [[0, 64], [130, 255]]
    assert shown(values, FrameDisplay(is_inverted=True)).tolist() == [[255, 191], [125, 0]]


def test_a_frame_of_one_value_is_black() -> None:
    values = np.full((2, 2), 7, dtype=np.int16)
    assert shown(values, FrameDisplay()).max() == 0
    assert shown(values, FrameDisplay(is_inverted=True)).min() == 255


@pytest.mark.parametrize("slope", [1.0, -1.0])
def test_a_frame_of_one_value_is_black_whatever_its_slope(slope: float) -> None:
    values = np.full((2, 2), 7, dtype=np.int16)
    assert shown(values, FrameDisplay(rescale_slope=slope)).max() == 0


def test_a_falling_slope_turns_the_full_range() -> None:
    values = np.array([[0, 100]], dtype=np.uint16)
    full_range = FrameVariant(full_range=True)
    display = FrameDisplay(rescale_slope=-2, windows=(Window(0, 1),))
    assert shown(values, display, full_range).tolist() == [[255, 0]]
    inverted = FrameDisplay(rescale_slope=-2, is_inverted=True)
    assert shown(values, inverted, full_range).tolist() == [[0, 255]]


def test_a_modality_lut_counts_for_the_full_range() -> None:
    table = read_lookup_table((3, 0, 16), [90, 50, 10], WORDS)
    values = np.array([[0, 1, 2]], dtype=np.uint16)
    assert shown(values, FrameDisplay(modality_lut=table)).tolist() == [[255, 128, 0]]


def test_windows_below_one_show_a_ramp() -> None:
    values = np.array([[0.0, 0.1, 0.2]], np.float32)
    display = FrameDisplay(windows=(Window(0.1, 0.2),))
    assert shown(values, display).tolist() == [[0, 128, 255]]


def test_what_is_no_number_is_shown_as_the_smallest_one() -> None:
    values = np.array([[np.nan, -np.inf, 0.0, 1.0, np.inf]], np.float32)
    assert shown(values, FrameDisplay()).tolist() == [[0, 0, 0, 255, 255]]
    assert shown(values, FrameDisplay(windows=(Window(0.5, 1),))).tolist() == [[0, 0, 0, 255, 255]]


@pytest.mark.parametrize(
    ("center", "width", "function", "expected"),
    [
        ([1.0], [2.0], None, (Window(1, 2),)),
        ([1.0], [2.0], " sigmoid ", (Window(1, 2, VoiFunction.SIGMOID),)),
        ([1.0], [2.0], "CURVED", (Window(1, 2),)),
        ([None], [2.0], None, ()),
        ([1.0], [0.0], None, ()),
        ([1.0, 3.0], [2.0], None, (Window(1, 2),)),
        ([1.0, 3.0], [0.0, 4.0], None, (Window(3, 4),)),
    ],
)
def test_windows_without_meaning_are_left_out(
    center: list[float | None],
    width: list[float | None],
    function: str | None,
    expected: tuple[Window, ...],
) -> None:
    assert make_windows(center, width, function) == expected


def test_lookup_tables_clamp_at_both_ends() -> None:
    table = read_lookup_table((3, 65_534, 16), [10, 20, 30], InputRange(-32_768, 32_767))
    assert table == LookupTable(-2, 16, b"\x0a\0\x14\0\x1e\0")
    assert table.apply(np.array([-9.0, -2.0, -1.0, 0.0, 9.0])).tolist() == [10, 10, 20, 30, 30]


@pytest.mark.parametrize(
    ("inputs", "first_mapped"),
    [
        # Stored unsigned, Hounsfield units after rescaling.
        (InputRange.of_stored(12, is_signed=False).rescaled(1, -1024), 64_512 - 65_536),
        (InputRange.of_stored(12, is_signed=True), 64_512 - 65_536),
        (InputRange.of_stored(16, is_signed=True).rescaled(-1, 0), 64_512 - 65_536),
        # Stored signed, and nothing is below 0 after rescaling.
        (InputRange.of_stored(16, is_signed=True).rescaled(1, 32_768), 64_512),
        (InputRange.of_stored(16, is_signed=False), 64_512),
        (InputRange.of_stored(16, is_signed=False).rescaled(1, -100), 64_512),
    ],
)
def test_the_first_mapped_value_is_negative_where_inputs_are(
    inputs: InputRange, first_mapped: int
) -> None:
    table = read_lookup_table((3, 64_512, 16), [10, 20, 30], inputs)
    assert table is not None
    assert table.first_mapped == first_mapped


def test_two_entries_may_share_a_word() -> None:
    table = read_lookup_table((4, 0, 8), bytes([1, 2, 3, 4]), WORDS)
    assert table is not None
    assert table.apply(np.arange(4.0)).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("descriptor", [(4, 0, 16), (0, 0, 16), (3, 0, 40)])
def test_tables_shorter_than_they_say_are_no_tables(descriptor: tuple[int, int, int]) -> None:
    assert read_lookup_table(descriptor, [1, 2, 3], WORDS) is None
