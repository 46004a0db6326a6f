from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from services.frames.pixels import refit_png
from services.frames.png import encode_png

_SIDES = st.integers(1, 20)


def decoded(png: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    shown = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    assert shown is not None
    return np.asarray(shown, np.uint8)


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


@pytest.mark.parametrize(("samples", "shape"), [(1, (8, 16)), (3, (8, 16, 3)), (4, (8, 16, 3))])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_any_picture_of_orthanc_shrinks_to_8_bits_without_transparency(
    samples: int, shape: tuple[int, ...], kind: type[np.unsignedinteger[Any]]
) -> None:
    theirs = np.full((16, 32, samples), np.iinfo(kind).max // 2, kind)
    png = cv2.imencode(".png", theirs)[1].tobytes()
    back = decoded(refit_png(png, 16, max_pixels=1000))
    assert back.shape == shape
    assert (back == 127).all()
