"""Bytes to text by SpecificCharacterSet (PS3.3 C.12.1.1.2, PS3.5 6.1.2), with fallbacks.

pydicom's decoder warns where files are sloppy; this one uses pydicom's tables and stays silent.
"""

import re
from collections.abc import Sequence

from pydicom.charset import CODES_TO_ENCODINGS, python_encoding

_ESCAPE = b"\x1b"
_KEEPS_ESCAPE = frozenset({"iso2022_jp", "iso2022_jp_2"})
"""Python's codecs of these read the escape sequence themselves."""
_ASCII_ONLY = _KEEPS_ESCAPE | {"shift_jis", "euc_kr", "iso_ir_58"}
_FRAGMENT = re.compile(rb"^[^\x1b]+|\x1b[^\x1b]*")
_NUMBER = re.compile(r"(?:ISO)?[ _-]*(2022)?[ _-]*IR[ _-]*(\d+)", re.IGNORECASE)
_DELIMITERS = re.compile(rb"[\^=\\\r\n\t\f]")
UTF_8 = "ISO_IR 192"


def encodings_of(specific_character_set: str | None) -> list[str]:
    """Return the Python codecs of a SpecificCharacterSet, the first for text without escapes.

    Args:
        specific_character_set: The values, separated by backslashes. Misspelt ones (`ISO-IR 100`)
            are understood, unknown ones left out; with none left, Latin-1.
    """
    found = [_codec(term) for term in (specific_character_set or "").split("\\")]
    return [codec for codec in found if codec is not None] or ["latin_1"]


def decode(value: bytes, encodings: Sequence[str]) -> str:
    """Decode a value; what its character set can't read is tried as UTF-8 and then Latin-1."""
    try:
        if _ESCAPE not in value:
            return value.decode(encodings[0])
        fragments: list[bytes] = _FRAGMENT.findall(value)
        return "".join(_decode_fragment(fragment, encodings) for fragment in fragments)
    except UnicodeDecodeError:
        pass  # the next codec is the answer to this one
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin_1")


def _codec(term: str) -> str | None:
    term = term.strip(" \0")
    if term in python_encoding:
        return _without_alias(python_encoding[term])
    match = _NUMBER.fullmatch(term)
    if match is None:
        return None
    prefix = "ISO 2022 IR" if match[1] else "ISO_IR"
    codec = python_encoding.get(f"{prefix} {match[2]}")
    return None if codec is None else _without_alias(codec)


def _without_alias(codec: str) -> str:
    return "latin_1" if codec == "iso8859" else codec


def _decode_fragment(fragment: bytes, encodings: Sequence[str]) -> str:
    if not fragment.startswith(_ESCAPE):
        return fragment.decode(encodings[0])
    length = 4 if fragment.startswith((b"\x1b$(", b"\x1b$)")) else 3
    codec = CODES_TO_ENCODINGS.get(fragment[:length])
    if codec is None:
        return fragment[length:].decode(encodings[0])
    if codec in _KEEPS_ESCAPE:
        return fragment.decode(codec)
    body = fragment[length:]
    # A delimiter takes the character set back to the first one (PS3.5 6.1.2.5.3).
    delimiter = _DELIMITERS.search(body)
    cut = len(body) if delimiter is None else delimiter.start()
    return body[:cut].decode(_without_alias(codec)) + body[cut:].decode(encodings[0])


def encode(text: str, specific_character_set: str | None) -> bytes | None:
    """Encode a text in a character set, None when its characters are not in it.

    Sets with escape sequences and half-width katakana are used for ASCII only: other text needs
    UTF-8.
    """
    codecs = encodings_of(specific_character_set)
    first = (specific_character_set or "").split("\\")[0].strip()
    try:
        if not first or codecs[0] in _ASCII_ONLY or len(codecs) > 1:
            return text.encode("ascii")
        encoded = text.encode(codecs[0])
    except UnicodeEncodeError:
        return None
    is_readable = b"\\" not in encoded and decode(encoded, codecs) == text
    return encoded if is_readable else None
