import struct
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

import pytest

from services.dicom.checking import check_file
from services.errors import FileRejected

_LONG_BYTES = 200_000_000


def element(tag: int, vr: str, length: int, value: bytes = b"") -> bytes:
    """Return an element in Explicit VR Little Endian whose VR has a length of 32 bits."""
    return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr.encode(), 0, length) + value


@pytest.fixture
def file() -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile() as opened:
        yield opened


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(element(0x00080060, "UT", _LONG_BYTES), id="a text"),
        pytest.param(
            element(0x00083010, "SQ", 0)
            + element(0x00283000, "SQ", _LONG_BYTES + 20)
            + struct.pack("<HHI", 0xFFFE, 0xE000, _LONG_BYTES + 12)
            + element(0x00090010, "OB", _LONG_BYTES),
            id="a value in a sequence",
        ),
    ],
)
def test_what_is_read_of_a_header_has_a_limit(file: BinaryIO, head: bytes) -> None:
    file.write(head)
    file.seek(_LONG_BYTES, 1)
    file.writelines(element(tag, "UT", 4, b"1.23") for tag in (0x00080018, 0x0020000D, 0x0020000E))
    with pytest.raises(FileRejected) as caught:
        check_file(file)
    assert (caught.value.code, caught.value.message) == (
        "TOO_MANY_ELEMENTS",
        "The attributes of this file have 200.0 MB; 134.2 MB are the limit.",
    )
