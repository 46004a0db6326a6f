"""DICOM values as plain Python values (PS3.5 6.2). An invalid value is None, never an error."""

import math
import re
import unicodedata
from datetime import date

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
"""Unicode categories that are invisible and can mislead: controls, bidi marks, surrogates."""
_JOINERS = frozenset({"\u200c", "\u200d"})
"""Persian and Indic scripts need them for correct spelling."""
_LINE_BREAKS = re.compile(r"[\t\r\n\f]+")
_YEN_SIGN = "\u00a5"
"""In ISO_IR 13 a backslash is a yen sign (PS3.5 6.1.2.5.3), and Orthanc returns it as one."""


def parse_date(text: str | None) -> str | None:
    """Read DA, also in the form of ACR-NEMA (`1995.09.03`), as ISO 8601; None for a range."""
    match = _DATE.fullmatch(first_value(text))
    if match is None:
        return None
    year, month, day = (int(part) for part in match.groups() if part is not None)
    try:
        return date(year, month, day).isoformat()
    except ValueError:
        return None


def parse_time(text: str | None) -> str | None:
    """Read TM, also with colons, as ISO 8601: `HH:MM:SS` and the fraction of the value, if any."""
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
    """Read DT as ISO 8601, with the offset from UTC of the value, if any; None for a date alone."""
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
    """Return the first of several values (PS3.5 6.4), without padding; `""` when there is none."""
    first, _, _ = (text or "").partition("\\")
    return first.partition(_YEN_SIGN)[0].strip(" \0\t\r\n")


def split_values(text: str | None) -> list[str]:
    """Return all values (PS3.5 6.4), none for an absent or empty text."""
    return text.split("\\") if text else []


def clean_text(text: str | None) -> str | None:
    """Return text without padding and invisible characters; None when nothing is left."""
    if text is None:
        return None
    if text.isascii() and text.isprintable():  # most texts: no need to look at each character
        return text.strip() or None
    visible = "".join(
        character
        for character in _LINE_BREAKS.sub(" ", text)
        if character in _JOINERS or unicodedata.category(character) not in _INVISIBLE
    )
    return visible.strip() or None


_BLANKS = "\u115f\u1160\u2800\u3164\uffa0"
"""Unicode letters that look like a space."""


def clean_identifier(text: str | None) -> str:
    """Return an ID without padding, the form in which IDs are compared; `""` for none.

    Leading and trailing spaces are not significant (PS3.5 6.2, LO). No-break and zero-width spaces
    come from copied text, and would make two patients of one.
    """
    return (clean_text((clean_text(text) or "").strip(_BLANKS)) or "").strip()


def comparable_text(text: str | None) -> str:
    """Return a text in the form in which texts of two files are compared.

    Without differences of case, of repeated spaces, and of Unicode's several codes for a letter.
    """
    return unicodedata.normalize("NFC", " ".join((text or "").split()).casefold())


def is_valid_uid(text: str | None) -> bool:
    """Return whether a text is a UID (PS3.5 9.1), liberal on leading zeros and empty components."""
    return text is not None and _UID.fullmatch(text) is not None
