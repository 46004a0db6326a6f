"""DICOM's values as plain Python ones (PS3.5 6.2). Nonsense is None, never an error."""

import math
import re
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from functools import lru_cache

from pydicom.charset import CODES_TO_ENCODINGS, python_encoding

_ESCAPE = b"\x1b"
_KEEPS_ESCAPE = frozenset({"iso2022_jp", "iso2022_jp_2"})
"""Python's codecs of these read the escape sequence themselves."""
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
"""Codecs by escape sequence; ISO 2022 IR 203 is newer than pydicom's table."""
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
"""Terms by the names that devices write instead, without separators."""
_LATIN = frozenset({"latin_1", _LATIN_9})
_SINGLE_BYTE = _LATIN | {
    _CODECS[f"ISO_IR {number}"] for number in (101, 109, 110, 126, 127, 138, 144, 148)
}
"""ISO 8859: bytes 80 to 9F are no characters in them."""
_C1 = re.compile(r"[\x80-\x9f]")
_LONG_UTF_8 = re.compile(rb"(?:[\x00-\x7f]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3})*")
"""UTF-8 with no letter of two bytes: those may be a letter of a set with two bytes each as well."""
UTF_8 = "ISO_IR 192"


def encodings_of(specific_character_set: str | None) -> list[str]:
    """Return the Python codecs of a SpecificCharacterSet, the first for text without escapes.

    Args:
        specific_character_set: The values, separated by backslashes. Misspelt ones (`ISO-IR 100`,
            `UTF-8`) are understood, unknown ones left out; with none left, Latin-1.
    """
    found = [_codec(term) for term in (specific_character_set or "").split("\\")]
    return [codec for codec in found if codec is not None] or ["latin_1"]


def decode(value: bytes, encodings: Sequence[str]) -> str:
    """Decode a value, never with an error.

    Bytes that contradict their character set are read as UTF-8 when they are UTF-8, else as
    Windows-1252, else as Latin-1. They contradict it when it can't read them, when they are
    controls in it (80 to 9F in ISO 8859), and when they are UTF-8 that the set would turn into
    nonsense.
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
    # A delimiter takes the character set back to the first one (PS3.5 6.1.2.5.3).
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


_DATE = re.compile(r"(\d{4})(\d\d)(\d\d)|(\d{4})[.\-/](\d\d)[.\-/](\d\d)", re.ASCII)
_TIME = re.compile(r"(\d\d)(?::?(\d\d)(?::?(\d\d)(?:\.(\d{1,6})\d*)?)?)?", re.ASCII)
_DATE_TIME = re.compile(
    r"(\d{8}|\d{4}\.\d\d\.\d\d)(\d\d[\d:]*(?:\.\d+)?)([+-](?:0\d|1[0-4])[0-5]\d)?", re.ASCII
)
_INTEGER = re.compile(r"[+-]?\d{1,12}(?:\.0*)?", re.ASCII)
_UID = re.compile(r"[0-9.]{1,64}", re.ASCII)
_LARGEST_INTEGER = 2**31 - 1
"""IS and every integer of the API have 32 bits (PS3.5 6.2)."""
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that show nothing and can only deceive: controls, bidi marks, surrogates."""
_JOINERS = frozenset({"\u200c", "\u200d"})
"""Spelling of Persian and of Indic scripts needs them."""
_LINE_BREAKS = re.compile(r"[\t\r\n\f]+")
_YEN_SIGN = "\u00a5"
"""A backslash in ISO_IR 13 is a yen sign (PS3.5 6.1.2.5.3), and Orthanc hands it out as one."""


def parse_date(text: str | None) -> str | None:
    """Read DA, also in the form of ACR-NEMA (`1995.09.03`), as ISO 8601; ranges are no date."""
    match = _DATE.fullmatch(first_value(text))
    if match is None:
        return None
    year, month, day = (int(part) for part in match.groups() if part is not None)
    try:
        return date(year, month, day).isoformat()
    except ValueError:
        return None


def parse_time(text: str | None) -> str | None:
    """Read TM, also with colons, as ISO 8601: `HH:MM:SS` with the fraction that was written."""
    match = _TIME.fullmatch(first_value(text))
    if match is None:
        return None
    hour, minute, second, fraction = match.groups()
    hours, minutes, seconds = int(hour), int(minute or 0), int(second or 0)
    if hours > 23 or minutes > 59 or seconds > 60:  # noqa: PLR2004 - a clock; 60 is a leap second
        return None
    whole = f"{hours:02}:{minutes:02}:{min(seconds, 59):02}"
    return f"{whole}.{fraction}" if fraction else whole


def parse_datetime(text: str | None) -> str | None:
    """Read DT as ISO 8601, with the offset from UTC that was written; a date alone is none."""
    match = _DATE_TIME.fullmatch(first_value(text))
    if match is None:
        return None
    day, time = parse_date(match[1]), parse_time(match[2])
    if day is None or time is None:
        return None
    offset = f"{match[3][:3]}:{match[3][3:]}" if match[3] else ""
    return f"{day}T{time}{offset}"


def parse_int(text: str | None) -> int | None:
    """Read the first value of IS, US and the like; None beyond 32 bits."""
    value = first_value(text)
    if _INTEGER.fullmatch(value) is None:
        return None
    number = int(value.split(".")[0])
    return number if -_LARGEST_INTEGER - 1 <= number <= _LARGEST_INTEGER else None


def parse_float(text: str | None) -> float | None:
    """Read the first value of DS, FL and the like; None when not finite."""
    value = first_value(text).replace(",", ".")
    if "_" in value:
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def first_value(text: str | None) -> str:
    """Return the first of the values that a backslash separates, without padding."""
    first, _, _ = (text or "").partition("\\")
    return first.partition(_YEN_SIGN)[0].strip(" \0\t\r\n")


def split_values(text: str | None) -> list[str]:
    """Return the values that backslashes separate; none of an absent or empty text."""
    return text.split("\\") if text else []


def clean_text(text: str | None) -> str | None:
    """Return text without padding, control, bidi and other invisible characters; empty is None."""
    if text is None:
        return None
    if text.isascii() and text.isprintable():  # most are: spares a look at each character
        return text.strip() or None
    visible = "".join(
        character
        for character in _LINE_BREAKS.sub(" ", text)
        if character in _JOINERS or unicodedata.category(character) not in _INVISIBLE
    )
    return visible.strip() or None


_BLANKS = "\u115f\u1160\u2800\u3164\uffa0"
"""Letters of Unicode that look like a space."""


def clean_identifier(text: str | None) -> str:
    """Return an ID without padding, `""` when there is none: the one form that is compared.

    Spaces around a value mean nothing (PS3.5 6.2). No-break spaces, zero-width spaces and the like
    come from copied texts, and would split a patient in two.
    """
    return (clean_text((clean_text(text) or "").strip(_BLANKS)) or "").strip()


def clean_person_name(text: str | None) -> str | None:
    """Return a person name with its component groups and components trimmed (PS3.5 6.2.1)."""
    cleaned = clean_text(text)
    if cleaned is None:
        return None
    groups = [
        "^".join(component.strip() for component in group.split("^")).rstrip("^")
        for group in cleaned.split("=")[:3]
    ]
    return "=".join(groups).rstrip("=") or None


def names_agree(one: str | None, other: str | None) -> bool:
    """Tell whether two person names may be those of one person.

    Compared without case, repeated spaces and Unicode's several ways to write a letter, in the
    component groups (PS3.5 6.2.1) that both have; a name that is absent contradicts nothing.
    """
    pairs = zip(_folded_groups(one), _folded_groups(other), strict=False)
    return all(not left or not right or left == right for left, right in pairs)


def _folded_groups(name: str | None) -> list[str]:
    folded = unicodedata.normalize("NFC", (clean_person_name(name) or "").casefold())
    return [" ".join(group.split()) for group in folded.split("=")]


_EAST_ASIAN = re.compile(
    "[\u1100-\u11ff\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3100-\u318f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff66-\uffdc"
    "\U0001aff0-\U0001b16f\U00020000-\U000323af]"
)
"""Letters of Chinese, Japanese and Korean names: Han, kana, Hangul, bopomofo, half-width forms."""


def display_name(person_name: str | None) -> str | None:
    """Write a person name as people do: `Tarou Yamada (山田 太郎)`.

    A group in an East Asian script reads family name first, in whichever of the three groups it
    stands; every other group reads prefix, given, middle, family, suffix (PS3.5 6.2.1.2). The first
    of the ideographic and phonetic groups that is there, and differs, stands in parentheses.
    """
    cleaned = clean_person_name(person_name)
    if cleaned is None:
        return None
    names = [name for name in map(_written_name, cleaned.split("=")) if name]
    first, *others = names or [""]
    other = next((name for name in others if name != first), "")
    return f"{first} ({other})" if other else first or None


def _written_name(group: str) -> str:
    family, given, middle, prefix, suffix = (*group.split("^")[:5], *[""] * 5)[:5]
    if _EAST_ASIAN.search(family or given):
        return " ".join(part for part in (family, given, middle, prefix, suffix) if part)
    name = " ".join(part for part in (prefix, given, middle, family) if part)
    return ", ".join(part for part in (name, suffix) if part)


def is_valid_uid(text: str | None) -> bool:
    """Tell whether a text is a UID (PS3.5 9.1), liberal on leading zeros and empty components."""
    return text is not None and _UID.fullmatch(text) is not None
