import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import InvalidInput
from services.frames.variant import FrameVariant

numbers = st.floats(allow_nan=False, allow_infinity=False)
sizes = st.none() | st.integers(1, 8192)
variants = st.one_of(
    st.builds(FrameVariant, full_range=st.booleans(), max_size=sizes),
    st.builds(
        FrameVariant,
        window_center=numbers,
        window_width=st.floats(1, allow_infinity=False),
        max_size=sizes,
    ),
)


@pytest.mark.parametrize(
    ("variant", "text"),
    [
        (FrameVariant(), "default"),
        (FrameVariant(full_range=True), "full"),
        (FrameVariant(40, 400), "w40x400"),
        (FrameVariant(-600.5, 1500, max_size=256), "w-600.5x1500-s256"),
        (FrameVariant(-0.0, 1), "w0x1"),
        (FrameVariant(max_size=8192), "default-s8192"),
    ],
)
def test_a_variant_has_one_short_spelling(variant: FrameVariant, text: str) -> None:
    assert variant.text == text
    assert FrameVariant.parse(text).text == text


@given(variants)
def test_what_is_spelled_is_read_back(variant: FrameVariant) -> None:
    assert FrameVariant.parse(variant.text) == variant


@given(st.text(alphabet="defaultfullw0123456789x.-se+", max_size=24))
def test_only_canonical_spellings_are_read(text: str) -> None:
    try:
        variant = FrameVariant.parse(text)
    except InvalidInput:
        return
    assert variant.text == text


@pytest.mark.parametrize(
    "text",
    ["", "w40.0x400", "w040x400", "w4e1x400", "w40x0.5", "default-s0", "default-s01", "full-s9000",
     "w--1x2", "w1.2.3x4", "default\n", "w1e999x2", "DEFAULT"],
)  # fmt: skip
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        FrameVariant.parse(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window_center": 1.0}, "windowCenter and windowWidth are given together or not at all."),
        ({"window_width": 1.0}, "windowCenter and windowWidth are given together or not at all."),
        (
            {"window_center": 1.0, "window_width": 2.0, "full_range": True},
            "fullRange and a window exclude each other.",
        ),
        (
            {"window_center": math.nan, "window_width": 2.0},
            "windowCenter and windowWidth are finite numbers.",
        ),
        (
            {"window_center": 0.0, "window_width": math.inf},
            "windowCenter and windowWidth are finite numbers.",
        ),
        (
            {"window_center": 0.0, "window_width": 0.5},
            "windowWidth is 1 or more (PS3.3 C.11.2.1.2).",
        ),
        ({"max_size": 0}, "maxSize is 1 to 8192 pixels."),
        ({"max_size": 8193}, "maxSize is 1 to 8192 pixels."),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(
    arguments: dict[str, float | bool], message: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        FrameVariant(**arguments)  # type: ignore[arg-type]  # one table for all fields
    assert refused.value.message == message
