"""How elements are told apart and told to people: VRs with long lengths, tags, sizes."""

from functools import lru_cache

from pydicom.datadict import dictionary_VR

LONG_VRS = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
"""VRs followed by two reserved bytes and a length of 32 bits (PS3.5 7.1.2)."""
SHORT_VRS = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN"}
    | {b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
)
"""VRs followed by a length of 16 bits (PS3.5 7.1.2)."""
_KILO = 1000


def tag_text(group: int, element: int) -> str:
    """Write a tag as the standard does: `(7FE0,0010)`."""
    return f"({group:04X},{element:04X})"


def bytes_text(count: int) -> str:
    """Write a number of bytes for people: `512 kB`."""
    if count < _KILO:
        return f"{count} bytes"
    if count < _KILO * _KILO:
        return f"{count / _KILO:.0f} kB"
    return f"{count / _KILO / _KILO:.1f} MB"


def bytes_texts(first: int, second: int) -> tuple[str, str]:
    """Write two numbers of bytes so that people see that they differ."""
    texts = bytes_text(first), bytes_text(second)
    return texts if texts[0] != texts[1] else (f"{first:,} bytes", f"{second:,} bytes")


@lru_cache(maxsize=8192)
def is_sequence_tag(tag: int) -> bool:
    """Tell whether the data dictionary (PS3.6) gives a tag the VR SQ; private tags are unknown."""
    try:
        return dictionary_VR(tag) == "SQ"
    except KeyError:
        return False
