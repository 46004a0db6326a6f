"""The elements of a dataset whose structure `walk` has proven; values are read on demand.

The reader for the index (`reading`) and the one for the DICOM JSON model (`json_model`) use it. An
invalid value is never an error. Items are read one by one: pydicom builds all items of a sequence
at once, which takes seconds for 100,000 of them.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO

from pydicom.datadict import dictionary_VR, private_dictionary_VR

from services.dicom.byte_window import ByteWindow
from services.dicom.character_sets import decode, encodings_of
from services.dicom.element_bytes import UNDEFINED_LENGTH, Encoding
from services.dicom.element_walk import ElementWalk
from services.dicom.layout import Element, FileLayout, WalkLimits

NUMBER_FORMATS = {
    "US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "UV": "Q", "SV": "q",
}  # fmt: skip
"""Format characters of the struct module for binary VRs (PS3.5 6.2)."""
_CHARACTER_SET = 0x00080005
_PIXEL_REPRESENTATION = 0x00280103
_LUT_DESCRIPTOR, _LUT_DATA = 0x00283002, 0x00283006
_PIXEL_DATA_GROUP = 0x7FE00000
_ITEM = 0xFFFEE000
_ITEM_HEAD_BYTES = 8
_PRIVATE_CREATORS = range(0x10, 0x100)
"""Element numbers of private creators (PS3.5 7.8.1)."""
_UN_MAX_BYTES = 0xFFFE
"""pydicom looks no VR up for a longer value of VR UN."""
_PROVEN = WalkLimits(
    sequence_max_depth=1_000,
    sequence_max_items=2**32,
    header_max_items=2**32,
    dataset_max_elements=2**32,
    header_max_elements=2**32,
    max_fragments=2**32,
)
"""No limits: `walk` has accepted these elements already."""


WHOLE_HEADER = range(_PIXEL_DATA_GROUP)
"""All tags before the pixel data, for `walk` to keep the whole header."""


@dataclass(frozen=True, slots=True)
class _Context:
    """What values of a dataset depend on besides its elements."""

    window: ByteWindow
    is_implicit_vr: bool
    is_little_endian: bool
    encodings: Sequence[str]
    is_signed: bool | None
    """PixelRepresentation of this dataset or of the innermost one around it that has it."""


class Elements:
    """The elements of one dataset or item, by tag; of repeated ones the last counts."""

    def __init__(self, elements: Iterable[Element], context: _Context) -> None:
        self._elements = {element.tag: element for element in elements}
        self._context = context
        encodings, is_signed = context.encodings, context.is_signed
        if _CHARACTER_SET in self._elements:
            encodings = encodings_of(self.text(_CHARACTER_SET))
        if pixel_representation := self.numbers(_PIXEL_REPRESENTATION):
            is_signed = pixel_representation[0] == 1
        self._context = _Context(
            context.window,
            context.is_implicit_vr,
            context.is_little_endian,
            encodings,
            is_signed,
        )

    def __contains__(self, tag: int) -> bool:
        """Return whether there is an element, with or without a value."""
        return tag in self._elements

    def __iter__(self) -> Iterator[Element]:
        """Iterate over the elements by rising tag."""
        return iter(sorted(self._elements.values()))

    def __getitem__(self, tag: int) -> Element:
        """Return the place of an element."""
        return self._elements[tag]

    @property
    def encoding(self) -> Encoding:
        """How the elements are encoded."""
        return Encoding(self._context.is_implicit_vr, self._context.is_little_endian)

    def vr(self, tag: int) -> str:
        """Return the VR of an element that is there, the same as pydicom.

        A missing or unknown VR (UN) comes from the data dictionary or the dictionary of the private
        creator. Where the dictionary allows several, other attributes decide.
        """
        element = self._elements[tag]
        vr = element.vr.decode("ascii") or None
        if vr not in (None, "UN"):
            return vr
        if vr == "UN" and not tag >> 16 & 1 and self.length(tag) > _UN_MAX_BYTES:
            return vr
        found = self._private_vr(tag) if tag >> 16 & 1 else dictionary_vr(tag)
        if found == "UN" and element.is_sequence and element.is_undefined_length:
            return "SQ"
        if found == "SQ" and not element.is_sequence:
            return "UN"
        return self._chosen_vr(tag, found) if " or " in found else found

    def length(self, tag: int) -> int:
        """Return the bytes of a value, delimiter included; 0 when it is absent."""
        element = self._elements.get(tag)
        return 0 if element is None else element.end - element.value_begin

    def value(self, tag: int) -> bytes:
        """Return the bytes of a value, empty when it is absent."""
        element = self._elements.get(tag)
        if element is None:
            return b""
        return self._context.window.read(element.value_begin, element.end - element.value_begin)

    def raw(self, tag: int) -> bytes:
        """Return the bytes of a whole element."""
        element = self._elements[tag]
        return self._context.window.read(element.begin, element.end - element.begin)

    def context(self) -> tuple[object, ...]:
        """Return everything besides its own bytes on which the model of an element depends."""
        context = self._context
        creators = [
            self.raw(tag)
            for tag in self._elements
            if tag >> 16 & 1 and tag & 0xFFFF in _PRIVATE_CREATORS
        ]
        return (
            context.is_implicit_vr,
            context.is_little_endian,
            context.is_signed,
            *context.encodings,
            *creators,
            self.value(_LUT_DESCRIPTOR),
        )

    def text(self, tag: int) -> str | None:
        """Return the values as text, separated by backslashes; binary numbers are written out.

        None when the element is absent or a sequence.
        """
        element = self._elements.get(tag)
        if element is None or element.is_sequence:
            return None
        code = NUMBER_FORMATS.get(self.vr(tag))
        if code is not None:
            return "\\".join(map(str, self._unpacked(tag, code)))
        return decode(self.value(tag), self._context.encodings)

    def numbers(self, tag: int, code: str = "H") -> tuple[int, ...]:
        """Return a binary value as numbers of a format character of the struct module."""
        return self._unpacked(tag, code) if tag in self._elements else ()

    def items(self, tag: int) -> Iterator["Elements"]:
        """Iterate over the items of a sequence; empty when it is absent or not a sequence."""
        element = self._elements.get(tag)
        if element is None or not element.is_sequence:
            return
        context = self._context
        head = struct.Struct("<HHI" if context.is_little_endian else ">HHI")
        # Sequences of unknown VR are implicit in an explicit dataset (PS3.5 6.2.2 note 2).
        is_implicit_vr = context.is_implicit_vr or element.vr == b"UN"
        offset = element.value_begin
        while offset < element.end:
            group, number, length = head.unpack(context.window.read(offset, _ITEM_HEAD_BYTES))
            if group << 16 | number != _ITEM:
                return
            offset += _ITEM_HEAD_BYTES
            item = ElementWalk(
                context.window,
                is_implicit_vr=is_implicit_vr,
                is_little_endian=context.is_little_endian,
                limits=_PROVEN,
                keep=WHOLE_HEADER,
                end=element.end if length == UNDEFINED_LENGTH else offset + length,
            )
            offset = item.walk(offset, is_item=length == UNDEFINED_LENGTH)
            inner = _Context(
                context.window,
                is_implicit_vr,
                context.is_little_endian,
                context.encodings,
                context.is_signed,
            )
            yield Elements(item.kept, inner)

    def first_item(self, tag: int) -> "Elements | None":
        """Return the first item of a sequence, None when it is absent or empty."""
        return next(self.items(tag), None)

    def _unpacked(self, tag: int, code: str) -> tuple[int, ...]:
        value = self.value(tag)
        count = len(value) // struct.calcsize(code)
        order = "<" if self._context.is_little_endian else ">"
        return struct.unpack_from(f"{order}{count}{code}", value)

    def _private_vr(self, tag: int) -> str:
        number = tag & 0xFFFF
        if number in _PRIVATE_CREATORS:
            return "LO"
        creator = self.text(tag & 0xFFFF0000 | number >> 8) if number >> 8 else None
        with suppress(KeyError, ValueError):
            return private_dictionary_VR(tag, (creator or "").rstrip(" \0"))
        return "UN"

    def _chosen_vr(self, tag: int, choice: str) -> str:
        """Choose by the attributes that decide (PS3.3 C.11.1.1.1, PS3.5 8.1.2 and A)."""
        if tag == _LUT_DATA:
            return "US" if self.numbers(_LUT_DESCRIPTOR)[:1] == (1,) else "OW"
        if choice == "US or SS":
            return "SS" if self._context.is_signed else "US"
        if choice == "OB or OW":
            return "OW"
        return choice.split(" or ", maxsplit=1)[0]


@lru_cache(maxsize=8192)
def dictionary_vr(tag: int) -> str:
    """Return the VR of a tag in the data dictionary (PS3.6), UN for an unknown tag."""
    if tag & 0xFFFF == 0:
        return "UL"
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "UN"


_AT_ONCE_BYTES = 4 * 1024 * 1024
"""Shorter headers are read in one call: each small read would release the interpreter lock, and
threads that read other files would wait for it."""


def kept_elements(
    file: BinaryIO, layout: FileLayout, kept: Sequence[Element] | None = None
) -> Elements:
    """Return the elements of the top level that `walk` kept.

    Args:
        file: The file, or its inflated copy; it must stay open until the last value is read.
        layout: What `walk` found in it.
        kept: Use these elements instead.
    """
    kept = layout.kept if kept is None else kept
    window = ByteWindow(file)
    if kept:
        begin, end = kept[0].begin, kept[-1].end
        if end - begin <= _AT_ONCE_BYTES:
            window.read(begin, end - begin)
    context = _Context(
        window, layout.is_implicit_vr, layout.is_little_endian, ("latin_1",), is_signed=None
    )
    return Elements(kept, context)


def header_places(file: BinaryIO, layout: FileLayout) -> tuple[list[Element], int]:
    """Walk over an accepted file again and return all elements before its pixel data.

    Args:
        file: The file, or its inflated copy.
        layout: What `walk` said about it.

    Returns:
        The elements of the top level in their order, repeated ones included, and where they end.
    """
    walk = ElementWalk(
        ByteWindow(file),
        is_implicit_vr=layout.is_implicit_vr,
        is_little_endian=layout.is_little_endian,
        limits=_PROVEN,
        keep=range(1 << 32),
        end=layout.end_offset,
    )
    walk.walk(layout.dataset_offset)
    after = next((e for e in walk.kept if e.tag >= _PIXEL_DATA_GROUP), None)
    header = [element for element in walk.kept if element.tag < _PIXEL_DATA_GROUP]
    return header, layout.end_offset if after is None else after.begin
