import io

import numpy as np
import pytest

from services.errors import FrameNotRenderable
from services.frames.rendering import read_npy

_VALUES = np.arange(12, dtype="<i2").reshape(3, 4, 1)


def npy(values: np.ndarray[tuple[int, ...], np.dtype[np.int16]], version: int = 1) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, values, (version, 0))
    return buffer.getvalue()


@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_array_comes_back_without_its_only_sample(version: int) -> None:
    for _ in range(2):
        assert (read_npy(npy(_VALUES, version)) == _VALUES[:, :, 0]).all()


def test_arrays_of_one_header_have_their_own_values() -> None:
    first, second = (read_npy(npy(values)) for values in (_VALUES, _VALUES + 1))
    assert (second - first == 1).all()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"\x93NUMPY\x01\x00",
        b"\x93NUMPY\x01\x00\xff\xff{}",
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b" " * 20_000,
        npy(_VALUES)[:40],
        npy(_VALUES)[:-1],
        npy(np.asfortranarray(_VALUES[:, :, 0])),
        npy(_VALUES).replace(b"<i2", b"|O2"),
        npy(_VALUES).replace(b"<i2", b"<c8"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(content: bytes) -> None:
    with pytest.raises(FrameNotRenderable):
        read_npy(content)
