"""DICOM's values as plain Python ones (PS3.5 6.2). Nonsense is None, never an error."""

import math
import re
import unicodedata
from collections.abc import Sequence
from datetime import date

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


_DATE = re.compile(r"(\d{4})(\d\d)(\d\d)|(\d{4})[.\-/](\d\d)[.\-/](\d\d)", re.ASCII)
_TIME = re.compile(r"(\d\d)(?::?(\d\d)(?::?(\d\d)(?:\.(\d{1,6})\d*)?)?)?", re.ASCII)
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


def display_name(person_name: str | None) -> str | None:
    """Write a person name as people do: `Tarou Yamada (山田 太郎)`.

    The alphabetic group reads prefix, given, middle, family, suffix; the ideographic and phonetic
    groups family name first, as East Asian names do (PS3.5 6.2.1.2). The first of those that is
    there stands in parentheses.
    """
    cleaned = clean_person_name(person_name)
    if cleaned is None:
        return None
    alphabetic, *others = cleaned.split("=")
    western = _western_order(alphabetic)
    eastern = next((name for name in map(_eastern_order, others) if name), "")
    if western and eastern:
        return f"{western} ({eastern})"
    return western or eastern or None


def _western_order(group: str) -> str:
    family, given, middle, prefix, suffix = (*group.split("^")[:5], *[""] * 5)[:5]
    name = " ".join(part for part in (prefix, given, middle, family) if part)
    return ", ".join(part for part in (name, suffix) if part)


def _eastern_order(group: str) -> str:
    return " ".join(part for part in group.split("^") if part)


def is_valid_uid(text: str | None) -> bool:
    """Tell whether a text is a UID (PS3.5 9.1), liberal on leading zeros and empty components."""
    return text is not None and _UID.fullmatch(text) is not None
