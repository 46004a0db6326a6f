import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import InvalidInput
from services.frames.variant import FrameVariant, PictureFormat

centers = st.floats(-1e10, 1e10)
widths = st.floats(1e-6, 1e10)
sizes = st.none() | st.integers(1, 8192)
formats = st.sampled_from(PictureFormat)
variants = st.one_of(
    st.builds(FrameVariant, full_range=st.booleans(), max_size=sizes, picture_format=formats),
    st.builds(
        FrameVariant,
        window_center=centers,
        window_width=widths,
        max_size=sizes,
        picture_format=formats,
    ),
)


@pytest.mark.parametrize(
    ("variant", "text"),
    [
        (FrameVariant(), "default.png"),
        (FrameVariant(full_range=True), "full.png"),
        (FrameVariant(40, 400), "w40x400.png"),
        (FrameVariant(-600.5, 1500, max_size=256), "w-600.5x1500-s256.png"),
        (FrameVariant(-0.0, 1), "w0x1.png"),
        (FrameVariant(max_size=8192), "default-s8192.png"),
        (FrameVariant(40, 400, picture_format=PictureFormat.JPEG), "w40x400.jpg"),
        # What JavaScript's String(Number(x.toPrecision(6))) writes.
        (FrameVariant(0.00005, 0.000001), "w0.00005x0.000001.png"),
        (FrameVariant(1234567, 1e9), "w1234570x1000000000.png"),
        (FrameVariant(1 / 3, 200 / 3), "w0.333333x66.6667.png"),
        (FrameVariant(1e-7, 0.0015), "w0x0.0015.png"),
    ],
)
def test_a_variant_has_one_short_spelling(variant: FrameVariant, text: str) -> None:
    assert variant.text == text
    assert FrameVariant.parse(text) == variant


@given(variants)
def test_what_is_spelled_is_read_back_and_bounded(variant: FrameVariant) -> None:
    assert FrameVariant.parse(variant.text) == variant
    assert len(variant.text) <= 48


@given(st.text(alphabet="defaultfullw0123456789x.-se+pngjpg", max_size=24))
def test_only_canonical_spellings_are_read(text: str) -> None:
    try:
        variant = FrameVariant.parse(text)
    except InvalidInput:
        return
    assert variant.text == text


@pytest.mark.parametrize(
    "text",
    ["", "default", ".png", "w40.0x400.png", "w040x400.png", "w4e1x400.png", "default-s0.png",
     "default-s01.png", "full-s9000.png", "w--1x2.png", "w1.2.3x4.png", "default.png\n",
     "w1e999x2.png", "DEFAULT.png", "default.PNG", "default.jpeg", "w-0x2.png", "w1x-2.png",
     "w1x0.png", "w1x0.0000001.png", "w1.2345678x2.png", "w1234567x2.png", "w20000000000x1.png"],
)  # fmt: skip
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        FrameVariant.parse(text)


_TOGETHER = "Give windowCenter and windowWidth together, or neither."
_LIMITS = "windowWidth must be 0.000001 or more, and both at most 10000000000."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window_center": 1.0}, _TOGETHER),
        ({"window_width": 1.0}, _TOGETHER),
        (
            {"window_center": 1.0, "window_width": 2.0, "full_range": True},
            "Give either fullRange or a window, not both.",
        ),
        (
            {"window_center": math.nan, "window_width": 2.0},
            "windowCenter and windowWidth must be finite numbers.",
        ),
        (
            {"window_center": 0.0, "window_width": math.inf},
            "windowCenter and windowWidth must be finite numbers.",
        ),
        ({"window_center": 0.0, "window_width": 0.0}, "windowWidth must be above 0."),
        ({"window_center": 0.0, "window_width": -1.0}, "windowWidth must be above 0."),
        ({"window_center": 0.0, "window_width": 1e-7}, _LIMITS),
        ({"window_center": -1.1e10, "window_width": 1.0}, _LIMITS),
        ({"max_size": 0}, "maxSize must be 1 to 8192 pixels."),
        ({"max_size": 8193}, "maxSize must be 1 to 8192 pixels."),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(
    arguments: dict[str, float | bool], message: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        FrameVariant(**arguments)  # type: ignore[arg-type]  # one table for all fields
    assert refused.value.message == message
