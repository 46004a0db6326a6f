"""Pieces that become one gzip file."""

import gzip
import zlib

from hypothesis import given
from hypothesis import strategies as st

from services.query.gzip_pieces import Piece, combine_crc32, joined, text_piece


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_pieces_become_one_gzip_member(contents: list[bytes]) -> None:
    file = b"".join(joined(map(Piece.of, contents)))
    assert gzip.decompress(file) == b"".join(contents)
    # Browsers stop behind the first member.
    inflating = zlib.decompressobj(16 + zlib.MAX_WBITS)
    assert inflating.decompress(file) == b"".join(contents)
    assert inflating.eof
    assert inflating.unused_data == b""


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_checksums_combine_as_those_of_zlib(first: bytes, second: bytes) -> None:
    combined = combine_crc32(zlib.crc32(first), zlib.crc32(second), len(second))
    assert combined == zlib.crc32(first + second)


def test_a_piece_returns_its_content() -> None:
    assert Piece.of(b"x" * 100_000).content() == b"x" * 100_000
    assert text_piece("[") is text_piece("[")
