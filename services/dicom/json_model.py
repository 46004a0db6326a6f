"""The DICOM JSON model (PS3.18 F) of a header."""

import base64
from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO

import orjson

from services.dicom.character_sets import UTF_8
from services.dicom.deflation import inflated_copy
from services.dicom.elements import WHOLE_HEADER, Elements, kept_elements
from services.dicom.layout import WalkLimits
from services.dicom.parser import walk
from services.dicom.values import parse_float, parse_int

BULK_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
"""Binary values (PS3.5 6.2), and those of unknown VR."""
_INLINE_MAX_BYTES = 64 * 1024
"""Largest binary value within the model: palettes and LUTs have at most 64 KiB."""
_SINGLE_VRS = frozenset({"LT", "ST", "UR", "UT"})
"""VRs in which a backslash is a character (PS3.5 6.2)."""
_INTEGER_VRS = frozenset({"IS", "SL", "SS", "SV", "UL", "US", "UV"})
_FLOAT_VRS = frozenset({"DS", "FD", "FL"})
_NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


BULK_ROOT = "urn:x-orthanc-graphql:bulkdata/"
"""First part of a BulkDataURI, for the caller to replace by the address of the instance.

The path of the element follows: its tag, after the tag of the sequence and the number of the item
(from 1) that contain it: `52009230/3/00281201`.
"""

_KNOWN_MAX_BYTES = 4096
"""Longest element whose model is kept for the next header."""

_Model = dict[str, Any]


class KnownElements:
    """What elements became in other headers: in a series most elements are the same.

    Callers must not change the models.

    Args:
        max_entries: At this number of entries all are dropped.
    """

    def __init__(self, max_entries: int = 20_000) -> None:
        self._max_entries = max_entries
        self._entries = 0
        self._texts: dict[object, dict[bytes, bytes]] = {}
        self._models: dict[object, dict[bytes, _Model]] = {}

    def texts(self, context: object) -> dict[bytes, bytes]:
        """Return the members of a JSON object by the bytes of elements of one context."""
        return self._texts.setdefault(context, {})

    def models(self, context: object) -> dict[bytes, _Model]:
        """Return models by the bytes of elements of one context."""
        return self._models.setdefault(context, {})

    def count(self) -> None:
        """Count an entry that was added."""
        self._entries += 1
        if self._entries >= self._max_entries:
            # Those in use go on alone, until their header is done.
            self._texts, self._models, self._entries = {}, {}, 0


def header_text(
    file: BinaryIO,
    limits: WalkLimits | None = None,
    *,
    known: KnownElements | None = None,
    file_size: int | None = None,
) -> bytes:
    """Return the header of a file in the DICOM JSON model, as JSON without blanks.

    Binary values of up to 64 KiB stand as InlineBinary; longer ones are not read and have a
    BulkDataURI that begins with `BULK_ROOT`. Reading stops before group 7FE0. Text is Unicode, so
    SpecificCharacterSet says ISO_IR 192. A value that does not fit its VR is null.

    Args:
        file: Seekable.
        limits: Of the walk.
        known: Elements of other files, which are used and added to.
        file_size: Of the whole file, in bytes, when `file` is only its beginning; see `walk`.

    Raises:
        FileRejected: With the codes of `walk.walk`.
    """
    layout = walk(file, limits, keep=WHOLE_HEADER, file_size=file_size)
    if not layout.is_deflated:
        return _text(kept_elements(file, layout), known)
    with inflated_copy(file, layout.dataset_offset, limits or WalkLimits()) as inflated:
        return _text(kept_elements(inflated, layout), known)


def header_json(
    file: BinaryIO, limits: WalkLimits | None = None, *, known: KnownElements | None = None
) -> _Model:
    """Return what `header_text` returns, as Python objects."""
    model: _Model = orjson.loads(header_text(file, limits, known=known))
    return model


def _text(elements: Elements, known: KnownElements | None) -> bytes:
    texts = {} if known is None else known.texts(elements.context())
    members: list[bytes] = []
    for element in elements:
        if element.tag & 0xFFFF == 0:  # group lengths are retired (PS3.5 7.2)
            continue
        if element.tag == _CHARACTER_SET:
            members.append(_CHARACTER_SET_TEXT)
            continue
        if known is None or element.end - element.begin > _KNOWN_MAX_BYTES:
            members.append(_member(elements, element.tag, known))
            continue
        raw = elements.raw(element.tag)
        text = texts.get(raw)
        if text is None:
            texts[raw] = text = _member(elements, element.tag, known)
            known.count()
        members.append(text)
    return b"{" + b",".join(members) + b"}"


def _member(elements: Elements, tag: int, known: KnownElements | None) -> bytes:
    return b"".join(member_pieces(f"{tag:08X}", _element(elements, tag, known, "")))


_CHARACTER_SET = 0x00080005
_CHARACTER_SET_MODEL = {"vr": "CS", "Value": [UTF_8]}
_CHARACTER_SET_TEXT = b'"00080005":' + orjson.dumps(_CHARACTER_SET_MODEL)


def member_pieces(tag: str, model: _Model) -> Iterator[bytes]:
    """Write an element as a member of a JSON object, in pieces.

    orjson keeps the interpreter until it is done with a call.

    Args:
        tag: Eight upper-case hexadecimal digits.
        model: Of the element.
    """
    items = model.get("Value", ())
    if model["vr"] != "SQ" or len(items) <= _WRITTEN_ITEMS:
        yield b'"%b":%b' % (tag.encode(), orjson.dumps(model))
        return
    yield b'"%b":{"vr":"SQ","Value":[' % tag.encode()
    for start in range(0, len(items), _WRITTEN_ITEMS):
        part = orjson.dumps(items[start : start + _WRITTEN_ITEMS])[1:-1]
        yield (b"," if start else b"") + part
    yield b"]}"


_WRITTEN_ITEMS = 512
"""Items of a sequence that are written at once: of functional groups about a megabyte."""


def _items(elements: Elements, known: KnownElements | None, path: str) -> _Model:
    models = {} if known is None else known.models(elements.context())
    item: _Model = {}
    for element in elements:
        if element.tag & 0xFFFF == 0:
            continue
        name = f"{element.tag:08X}"
        if element.tag == _CHARACTER_SET:
            item[name] = _CHARACTER_SET_MODEL
            continue
        if known is None or element.end - element.begin > _KNOWN_MAX_BYTES:
            item[name] = _element(elements, element.tag, known, path)
            continue
        raw = elements.raw(element.tag)
        model = models.get(raw)
        if model is None:
            models[raw] = model = _element(elements, element.tag, known, path)
            known.count()
        item[name] = model
    return item


def _element(elements: Elements, tag: int, known: KnownElements | None, path: str) -> _Model:
    vr = elements.vr(tag)
    place = f"{path}{tag:08X}"
    if vr in BULK_VRS:
        if elements.length(tag) > _INLINE_MAX_BYTES:
            return {"vr": vr, "BulkDataURI": BULK_ROOT + place}
        value = elements.value(tag)
        return {"vr": vr, "InlineBinary": base64.b64encode(value).decode()} if value else {"vr": vr}
    if vr == "SQ":
        items = [
            _items(item, known, f"{place}/{number}/")
            for number, item in enumerate(elements.items(tag), start=1)
        ]
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


def bulk_value(file: BinaryIO, path: str, limits: WalkLimits | None = None) -> bytes | None:
    """Return the binary value that a path behind `BULK_ROOT` names.

    Args:
        file: Seekable.
        path: Of the element.
        limits: Of the walk.

    Returns:
        None when there is no element with a binary value there.

    Raises:
        FileRejected: With the codes of `walk.walk`.
    """
    layout = walk(file, limits, keep=WHOLE_HEADER)
    if not layout.is_deflated:
        return _value_at(kept_elements(file, layout), path)
    with inflated_copy(file, layout.dataset_offset, limits or WalkLimits()) as inflated:
        return _value_at(kept_elements(inflated, layout), path)


def _value_at(elements: Elements, path: str) -> bytes | None:
    *parents, last = path.split("/")
    try:
        for tag, number in zip(parents[::2], parents[1::2], strict=True):
            elements = next(islice(elements.items(int(tag, 16)), int(number) - 1, None))
        tag_number = int(last, 16)
    except (ValueError, StopIteration):
        return None
    if tag_number not in elements or elements.vr(tag_number) not in BULK_VRS:
        return None
    return elements.value(tag_number)
