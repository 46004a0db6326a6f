"""The DICOM JSON model (PS3.18 F) of a header."""

import base64
from typing import Any, BinaryIO

from services.dicom.deflation import inflated_copy
from services.dicom.elements import WHOLE_HEADER, Elements, kept_elements
from services.dicom.layout import WalkLimits
from services.dicom.parser import walk
from services.dicom.values import UTF_8, parse_float, parse_int

BULK_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
"""Binary values (PS3.5 6.2), and those of unknown VR."""
_INLINE_MAX_BYTES = 64 * 1024
"""Largest binary value that stands in the model: palettes and LUTs have at most 64 KiB."""
_SINGLE_VRS = frozenset({"LT", "ST", "UR", "UT"})
"""VRs in which a backslash is a character (PS3.5 6.2)."""
_INTEGER_VRS = frozenset({"IS", "SL", "SS", "SV", "UL", "US", "UV"})
_FLOAT_VRS = frozenset({"DS", "FD", "FL"})
_NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


def header_json(file: BinaryIO, limits: WalkLimits | None = None) -> dict[str, Any]:
    """Return the header of a file in the DICOM JSON model.

    Binary values of up to 64 KiB stand as InlineBinary; longer ones are not read and have neither
    value nor BulkDataURI. Reading stops before group 7FE0. Text is Unicode, so SpecificCharacterSet
    says ISO_IR 192. A value that does not fit its VR is null.

    Raises:
        FileRejected: With the codes of `walk.walk`.
    """
    layout = walk(file, limits, keep=WHOLE_HEADER)
    if not layout.is_deflated:
        return _items(kept_elements(file, layout))
    with inflated_copy(file, layout.dataset_offset, limits or WalkLimits()) as inflated:
        return _items(kept_elements(inflated, layout))


def _items(elements: Elements) -> dict[str, Any]:
    model = {
        f"{element.tag:08X}": _element(elements, element.tag)
        for element in elements
        if element.tag & 0xFFFF != 0  # group lengths are retired (PS3.5 7.2)
    }
    if "00080005" in model:
        model["00080005"]["Value"] = [UTF_8]
    return model


def _element(elements: Elements, tag: int) -> dict[str, Any]:
    vr = elements.vr(tag)
    if vr in BULK_VRS:
        value = elements.value(tag) if elements.length(tag) <= _INLINE_MAX_BYTES else b""
        return {"vr": vr, "InlineBinary": base64.b64encode(value).decode()} if value else {"vr": vr}
    if vr == "SQ":
        items = [_items(item) for item in elements.items(tag)]
        return {"vr": vr, "Value": items} if items else {"vr": vr}
    values = _values(elements, tag, vr)
    return {"vr": vr, "Value": values} if any(v is not None for v in values) else {"vr": vr}


def _values(elements: Elements, tag: int, vr: str) -> list[Any]:
    if vr == "AT":  # eight hexadecimal digits each (PS3.18 F.2.3)
        numbers = elements.numbers(tag)
        pairs = zip(numbers[::2], numbers[1::2], strict=False)
        return [f"{group:04X}{element:04X}" for group, element in pairs]
    text = (elements.text(tag) or "").rstrip(" \0")
    if not text:
        return []
    texts = [text] if vr in _SINGLE_VRS else text.split("\\")
    return [_value(vr, part.strip(" \0")) for part in texts]


def _value(vr: str, text: str) -> Any:  # noqa: ANN401 - text, number, name or null (PS3.18 F.2.2)
    if vr == "PN":
        groups = zip(_NAME_GROUPS, text.split("="), strict=False)
        return {name: group for name, group in groups if group} or None
    if vr in _INTEGER_VRS:
        return parse_int(text) if vr == "IS" else int(text)
    if vr in _FLOAT_VRS:
        return parse_float(text)
    return text or None
