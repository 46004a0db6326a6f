"""Text by its SpecificCharacterSet (PS3.3 C.12.1.1.2, PS3.5 6.1)."""

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache

from pydicom.charset import CODES_TO_ENCODINGS, python_encoding

_ESCAPE = b"\x1b"
_KEEPS_ESCAPE = frozenset({"iso2022_jp", "iso2022_jp_2"})
"""Python codecs that interpret the escape sequences themselves."""
_ASCII_ONLY = _KEEPS_ESCAPE | {"shift_jis", "euc_kr", "iso_ir_58"}
_FRAGMENT = re.compile(rb"^[^\x1b]+|\x1b[^\x1b]*")
_NUMBER = re.compile(r"(?:ISO)?(2022)?(?:IR)?(\d{1,3})")
_DELIMITERS = re.compile(rb"[\^=\\\r\n\t\f]")
_LATIN_9 = "iso8859_15"
_ESCAPES = {
    **{
        code: "latin_1" if codec == "iso8859" else codec
        for code, codec in CODES_TO_ENCODINGS.items()
    },
    b"\x1b-b": _LATIN_9,
}
"""Codecs by escape sequence; pydicom's table does not have ISO 2022 IR 203 yet."""
_CODECS = {
    **{term: "latin_1" if codec == "iso8859" else codec for term, codec in python_encoding.items()},
    **dict.fromkeys(("ISO_IR 203", "ISO 2022 IR 203"), _LATIN_9),
    "CP1252": "cp1252",
    "BIG5": "big5",
}
"""Python codecs by Defined Term (PS3.3 C.12.1.1.2)."""
_PARTS_OF_ISO_8859 = {
    1: 100, 2: 101, 3: 109, 4: 110, 5: 144, 6: 127, 7: 126, 8: 138, 9: 148, 11: 166, 15: 203,
}  # fmt: skip
_NAMES = {
    **dict.fromkeys(("UTF8", "UNICODE", "ISO10646"), "ISO_IR 192"),
    **dict.fromkeys(("ASCII", "USASCII"), "ISO_IR 6"),
    **{f"LATIN{part}": f"ISO_IR {99 + part}" for part in (1, 2)},
    **dict.fromkeys(("CP1252", "WINDOWS1252", "ANSI"), "CP1252"),
    **{f"ISO8859{part}": f"ISO_IR {number}" for part, number in _PARTS_OF_ISO_8859.items()},
    **dict.fromkeys(("GB2312", "CP936", "GBK"), "GBK"),
    **dict.fromkeys(("SHIFTJIS", "SJIS"), "ISO_IR 13"),
    **dict.fromkeys(("EUCKR", "KSX1001", "KSC5601"), "ISO 2022 IR 149"),
    "BIG5": "BIG5",
}
"""Defined Terms by the names that devices write instead; separators are left out."""
_LATIN = frozenset({"latin_1", _LATIN_9})
_SINGLE_BYTE = _LATIN | {
    _CODECS[f"ISO_IR {number}"] for number in (101, 109, 110, 126, 127, 138, 144, 148)
}
"""Sets of ISO 8859: bytes 80 to 9F are control characters in them."""
_C1 = re.compile(r"[\x80-\x9f]")
_LONG_UTF_8 = re.compile(rb"(?:[\x00-\x7f]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3})*")
"""UTF-8 without letters of two bytes, which may also be a letter of a double-byte set."""
UTF_8 = "ISO_IR 192"


def encodings_of(specific_character_set: str | None) -> list[str]:
    """Return the Python codecs of a SpecificCharacterSet (PS3.3 C.12.1.1.2).

    Args:
        specific_character_set: The values, separated by backslashes. Common misspellings
            (`ISO-IR 100`, `UTF-8`) are understood and unknown values are ignored.

    Returns:
        The codecs, first the one for text without escape sequences; Latin-1 when none is known.
    """
    found = [_codec(term) for term in (specific_character_set or "").split("\\")]
    return [codec for codec in found if codec is not None] or ["latin_1"]


def decode(value: bytes, encodings: Sequence[str]) -> str:
    """Decode a value; never raises.

    Bytes that contradict their character set are decoded as UTF-8 when they are valid UTF-8, else
    as Windows-1252, else as Latin-1. They contradict it when they are not valid in it, when they
    are control characters in it (80 to 9F in ISO 8859), or when they are UTF-8 with letters of a
    kind that the set would show as unlikely characters.
    """
    declared = _decode_as_declared(value, encodings)
    if declared is not None and not _is_contradicted(value, declared, encodings[0]):
        return declared
    fallbacks = ["utf_8", "cp1252"]
    if declared is not None and encodings[0] not in _LATIN:
        fallbacks = ["utf_8"]
    for codec in fallbacks:
        with suppress(UnicodeDecodeError):
            return value.decode(codec)
    return value.decode("latin_1") if declared is None else declared


def _decode_as_declared(value: bytes, encodings: Sequence[str]) -> str | None:
    try:
        if _ESCAPE not in value:
            return value.decode(encodings[0])
        fragments: list[bytes] = _FRAGMENT.findall(value)
        return "".join(_decode_fragment(fragment, encodings) for fragment in fragments)
    except UnicodeDecodeError:
        return None


def _is_contradicted(value: bytes, declared: str, codec: str) -> bool:
    if value.isascii() or _ESCAPE in value or codec == _CODECS[UTF_8]:
        return False
    if codec not in _SINGLE_BYTE:
        return _LONG_UTF_8.fullmatch(value) is not None
    if _C1.search(declared):
        return True
    return codec in _LATIN and _is_utf_8(value)


def _is_utf_8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


@lru_cache(maxsize=256)
def _codec(term: str) -> str | None:
    term = term.strip(" \0")
    if term in _CODECS:
        return _CODECS[term]
    name = re.sub(r"[^0-9A-Z]", "", term.upper())
    if name in _NAMES:
        return _CODECS[_NAMES[name]]
    match = _NUMBER.fullmatch(name)
    if match is None:
        return None
    prefix = "ISO 2022 IR" if match[1] else "ISO_IR"
    return _CODECS.get(f"{prefix} {match[2]}")


def _decode_fragment(fragment: bytes, encodings: Sequence[str]) -> str:
    if not fragment.startswith(_ESCAPE):
        return fragment.decode(encodings[0])
    length = 4 if fragment.startswith((b"\x1b$(", b"\x1b$)")) else 3
    codec = _ESCAPES.get(fragment[:length])
    if codec is None:
        return fragment[length:].decode(encodings[0])
    if codec in _KEEPS_ESCAPE:
        return fragment.decode(codec)
    body = fragment[length:]
    # A delimiter switches back to the first character set (PS3.5 6.1.2.5.3).
    delimiter = _DELIMITERS.search(body)
    cut = len(body) if delimiter is None else delimiter.start()
    return body[:cut].decode(codec) + body[cut:].decode(encodings[0])


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
