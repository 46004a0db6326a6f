from dataclasses import replace

import numpy as np
import pytest

from services.errors import OrthancError
from services.frames.pixels import RawLayout, raw_layout
from tests.graph.routes.stage import IndexedInstance

INSTANCE = IndexedInstance(transfer_syntax_uid="1.2.840.10008.1.2.1")


@pytest.mark.parametrize(
    ("instance", "dtype"),
    [
        (INSTANCE, "<u2"),
        (replace(INSTANCE, pixel_representation=1), "<i2"),
        (replace(INSTANCE, bits_allocated=8, bits_stored=8), "u1"),
        (replace(INSTANCE, photometric_interpretation="MONOCHROME1"), "<u2"),
        (replace(INSTANCE, transfer_syntax_uid="1.2.840.10008.1.2"), "<u2"),
        (replace(INSTANCE, pixel_representation=None), "<u2"),
    ],
)
def test_grey_values_that_fill_their_words_are_as_in_the_file(
    instance: IndexedInstance, dtype: str
) -> None:
    assert raw_layout(instance) == RawLayout(2, 3, np.dtype(dtype))


@pytest.mark.parametrize(
    "instance",
    [
        replace(INSTANCE, bits_stored=12),
        replace(INSTANCE, bits_stored=None),
        replace(INSTANCE, bits_allocated=None),
        replace(INSTANCE, bits_allocated=32, bits_stored=32),
        replace(INSTANCE, bits_allocated=8, bits_stored=8, pixel_representation=1),
        replace(INSTANCE, pixel_representation=2),
        replace(INSTANCE, samples_per_pixel=3),
        replace(INSTANCE, samples_per_pixel=None),
        replace(INSTANCE, photometric_interpretation="PALETTE COLOR"),
        replace(INSTANCE, photometric_interpretation=None),
        replace(INSTANCE, rows=None),
        replace(INSTANCE, rows=0),
        replace(INSTANCE, columns=None),
        replace(INSTANCE, transfer_syntax_uid=None),
        replace(INSTANCE, transfer_syntax_uid="1.2.840.10008.1.2.2"),
        replace(INSTANCE, transfer_syntax_uid="1.2.840.10008.1.2.1.99"),
        replace(INSTANCE, transfer_syntax_uid="1.2.840.10008.1.2.5"),
    ],
)
def test_all_other_values_are_decoded(instance: IndexedInstance) -> None:
    assert raw_layout(instance) is None


def test_values_are_read_in_the_byte_order_of_the_file() -> None:
    layout = RawLayout(2, 2, np.dtype("<i2"))
    content = b"\x01\x00\x00\x01\xff\xff\x00\x80"
    assert layout.read(content).tolist() == [[1, 256], [-1, -32768]]


@pytest.mark.parametrize("content", [b"", bytes(7), bytes(9), bytes(16)])
def test_a_frame_of_another_size_is_refused(content: bytes) -> None:
    with pytest.raises(OrthancError):
        RawLayout(2, 2, np.dtype("<i2")).read(content)
