"""The DICOM JSON model (PS3.18 F) of a header, without bulk data."""

from typing import Any, BinaryIO

from services.dicom.attributes import DatasetAttributes
from services.dicom.character_sets import UTF_8
from services.dicom.deflation import inflated_copy
from services.dicom.layout import WalkLimits
from services.dicom.skimming import BULK_VRS, skim_header
from services.dicom.values import parse_float, parse_int
from services.dicom.walk import walk

_SINGLE_VRS = frozenset({"LT", "ST", "UR", "UT"})
"""VRs in which a backslash is a character (PS3.5 6.2)."""
_INTEGER_VRS = frozenset({"IS", "SL", "SS", "SV", "UL", "US", "UV"})
_FLOAT_VRS = frozenset({"DS", "FD", "FL"})
_NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


def header_json(file: BinaryIO, limits: WalkLimits | None = None) -> dict[str, Any]:
    """Return the header of a file in the DICOM JSON model.

    Elements of binary VRs stand with their VR and without value; there is no BulkDataURI, and long
    ones are not even read. Reading stops before group 7FE0. Text is Unicode, so
    SpecificCharacterSet says ISO_IR 192. An element that pydicom can't convert keeps its VR and
    loses its value.

    Raises:
        FileRejected: With the codes of `walk.walk`.
    """
    layout = walk(file, limits)
    if not layout.is_deflated:
        return _items(DatasetAttributes(skim_header(file, layout)))
    with inflated_copy(file, layout.dataset_offset, limits or WalkLimits()) as inflated:
        return _items(DatasetAttributes(skim_header(inflated, layout)))


def _items(attributes: DatasetAttributes) -> dict[str, Any]:
    model = {
        f"{tag:08X}": _element(attributes, tag, vr)
        for tag, vr in attributes.vrs()
        if tag & 0xFFFF != 0  # group lengths are retired (PS3.5 7.2)
    }
    if "00080005" in model:
        model["00080005"]["Value"] = [UTF_8]
    return model


def _element(attributes: DatasetAttributes, tag: int, vr: str) -> dict[str, Any]:
    if vr in BULK_VRS:
        return {"vr": vr}
    if vr == "SQ":
        items = [_items(item) for item in attributes.items(tag)]
        return {"vr": vr, "Value": items} if items else {"vr": vr}
    if vr == "AT":
        return _tags(attributes, tag)
    text = (attributes.text(tag) or "").rstrip(" \0")
    if not text:
        return {"vr": vr}
    texts = [text] if vr in _SINGLE_VRS else text.split("\\")
    values = [_value(vr, part.strip(" \0")) for part in texts]
    return {"vr": vr, "Value": values} if any(v is not None for v in values) else {"vr": vr}


def _tags(attributes: DatasetAttributes, tag: int) -> dict[str, Any]:
    """Write AT as eight hexadecimal digits each (PS3.18 F.2.3)."""
    numbers = attributes.numbers(tag, "H")
    pairs = zip(numbers[::2], numbers[1::2], strict=False)
    values = [f"{group:04X}{element:04X}" for group, element in pairs]
    return {"vr": "AT", "Value": values} if values else {"vr": "AT"}


def _value(vr: str, text: str) -> Any:  # noqa: ANN401 - text, number, name or null (PS3.18 F.2.2)
    if vr == "PN":
        groups = zip(_NAME_GROUPS, text.split("="), strict=False)
        return {name: group for name, group in groups if group} or None
    if vr in _INTEGER_VRS:
        return parse_int(text) if vr == "IS" else int(text)
    if vr in _FLOAT_VRS:
        return parse_float(text)
    return text or None
