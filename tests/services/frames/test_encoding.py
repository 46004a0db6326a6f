import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from services.frames.encoding import encode_jpeg, encode_png

_SIDES = st.integers(1, 20)


def decoded(png: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    shown = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    assert shown is not None
    return np.asarray(shown, np.uint8)


@pytest.mark.no_cover
@given(
    hnp.arrays(np.uint8, st.tuples(_SIDES, _SIDES) | st.tuples(_SIDES, _SIDES, st.just(3))),
    st.booleans(),
)
def test_any_picture_comes_back_as_it_was(
    shown: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], is_transposed: bool
) -> None:
    if is_transposed:
        shown = shown.swapaxes(0, 1)
    back = decoded(encode_png(shown))
    assert back.shape == shown.shape
    assert (back == shown).all()


@pytest.mark.parametrize("shape", [(512, 512), (480, 640, 3)])
def test_files_are_as_small_as_those_of_opencv(shape: tuple[int, ...]) -> None:
    noise = np.random.default_rng(0).integers(0, 16, shape)
    slope = np.linspace(0, 200, shape[1]).reshape(1, -1, *[1] * (len(shape) - 2))
    shown = (noise + slope).astype(np.uint8)
    theirs = cv2.imencode(".png", shown)[1]
    assert len(encode_png(shown)) < 1.03 * len(theirs)


@pytest.mark.parametrize("spread", [2, 16, 128])
@pytest.mark.parametrize("flat_percent", [0, 5, 10, 21, 50, 100])
def test_files_of_noise_beside_nothing_are_as_small_as_those_of_opencv(
    flat_percent: int, spread: int
) -> None:
    shown = np.random.default_rng(0).integers(0, spread, (400, 400), np.uint8)
    shown[:, : 4 * flat_percent] = 0
    assert len(encode_png(shown)) < 1.03 * len(cv2.imencode(".png", shown)[1])


@pytest.mark.parametrize("shape", [(64, 80), (64, 80, 3)])
def test_a_jpeg_is_close_to_the_picture_and_says_that_it_is_lossy(shape: tuple[int, ...]) -> None:
    slope = np.linspace(0, 200, shape[1]).reshape(1, -1, *[1] * (len(shape) - 2))
    shown = np.broadcast_to(slope, shape).astype(np.uint8)
    content = encode_jpeg(shown)
    back = decoded(content)
    assert back.shape == shown.shape
    assert np.abs(back.astype(int) - shown).max() <= 3
    assert b"Lossy" in content[:64]
