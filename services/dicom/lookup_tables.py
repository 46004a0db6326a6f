"""Lookup tables and palettes as they are stored (PS3.3 C.7.6.3.1.5, C.7.9, C.11.1 and C.11.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

_ENTRIES_FOR_ZERO = 65_536
"""PS3.3 C.11.1.1.1: zero entries stand for 2^16, which 16 bits can't say."""

_BYTE_BITS = 8
_WORD_BITS = 16
_LARGEST_BYTE = 255

Descriptor = tuple[int, int, int]
"""Number of entries, first mapped value, bits of an entry."""


@dataclass(frozen=True, slots=True)
class LookupTable:
    """One LUT: hashable, so that what is built from it can be cached.

    Attributes:
        first_mapped: Input value of the first entry.
        bits: Bits of an entry, 8 to 16: the output range is 0 to 2^bits - 1.
        entries: Output values, as bytes of little-endian unsigned 16-bit numbers.
    """

    first_mapped: int
    bits: int
    entries: bytes

    @property
    def maximum(self) -> int:
        """The largest output value."""
        return (1 << self.bits) - 1

    def apply(self, values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Map values; those outside take the first or last entry (PS3.3 C.11.2.1.1)."""
        table = np.frombuffer(self.entries, dtype="<u2").astype(np.float64)
        index = np.clip(np.rint(values) - self.first_mapped, 0, table.size - 1)
        mapped: npt.NDArray[np.float64] = table[index.astype(np.int64)]
        return mapped


@dataclass(frozen=True, slots=True)
class InputRange:
    """The smallest and the largest value that a table can be asked for."""

    smallest: float
    largest: float

    @classmethod
    def of_stored(cls, bits_stored: int, *, is_signed: bool) -> Self:
        """Return the range of stored values."""
        values = 1 << bits_stored
        return cls(-(values // 2), values // 2 - 1) if is_signed else cls(0, values - 1)

    def rescaled(self, slope: float, intercept: float) -> "InputRange":
        """Return the range after rescaling."""
        ends = (self.smallest * slope + intercept, self.largest * slope + intercept)
        return InputRange(min(ends), max(ends))


def read_lookup_table(
    descriptor: Descriptor, data: bytes | list[int], inputs: InputRange
) -> LookupTable | None:
    """Read LUTDescriptor and LUTData (PS3.3 C.11.1.1.1).

    Args:
        descriptor: LUTDescriptor.
        data: LUTData as OW bytes (little-endian) or as numbers.
        inputs: What can be looked up.

    Returns:
        The table; None when it is empty or shorter than its descriptor says.
    """
    declared, first_mapped, bits = descriptor
    count = (declared & 0xFFFF) or _ENTRIES_FOR_ZERO
    entries = _entries(data, count)
    if entries.size < count or not _BYTE_BITS <= bits <= _WORD_BITS:
        return None
    return LookupTable(
        _first_mapped(first_mapped, inputs),
        bits,
        entries[:count].astype("<u2").tobytes(),
    )


def _first_mapped(value: int, inputs: InputRange) -> int:
    """Return the first mapped value with its sign.

    It is signed where the inputs are (PS3.3 C.11.1.1.1, C.11.2.1.1); many files say US all the
    same: of a CT stored unsigned, whose Hounsfield units are not, or in Implicit VR.
    """
    is_negative = value >= _ENTRIES_FOR_ZERO // 2 and inputs.smallest < 0 and value > inputs.largest
    return value - _ENTRIES_FOR_ZERO if is_negative else value


def _entries(data: bytes | list[int], count: int) -> npt.NDArray[np.uint16]:
    if not isinstance(data, bytes):
        return np.asarray([number & 0xFFFF for number in data], dtype=np.uint16)
    # Two 8-bit entries may share one 16-bit word (PS3.3 C.11.1.1.1).
    is_packed = len(data) < 2 * count
    return np.frombuffer(data, "u1" if is_packed else "<u2", len(data) // (2 - is_packed)).astype(
        np.uint16
    )


def expand_segments(
    items: npt.NDArray[np.unsignedinteger[Any]], count: int
) -> npt.NDArray[np.uint16]:
    """Expand one table of a segmented palette (PS3.3 C.7.9.2).

    Args:
        items: The segmented data, one 8-bit or 16-bit number an item.
        count: Entries of the table; what goes beyond is cut off, so no file expands without end.

    Raises:
        ValueError: A segment is of no known type, is cut off, or needs one before it.
    """
    expanded = _Segments(items, count)
    try:
        expanded.expand()
    except IndexError as exc:
        raise ValueError("a segment is cut off") from exc
    return np.asarray(expanded.entries[:count], np.uint16)


_DISCRETE, _LINEAR, _INDIRECT = 0, 1, 2
"""Types of segments (PS3.3 C.7.9.2)."""


class _Segments:
    def __init__(self, items: npt.NDArray[np.unsignedinteger[Any]], count: int) -> None:
        self._items: list[int] = items.tolist()
        self._item_bytes = items.dtype.itemsize
        self._count = count
        self.entries: list[int] = []

    def expand(self) -> None:
        at = 0
        # A single item at the end is padding.
        while at + 1 < len(self._items) and len(self.entries) < self._count:
            at = self._copy(at) if self._items[at] == _INDIRECT else self._segment(at)

    def _segment(self, at: int) -> int:
        """Append a discrete or linear segment; return where the next one begins."""
        kind, length = self._items[at], self._items[at + 1]
        if kind == _DISCRETE:
            values = self._items[at + 2 : at + 2 + length]
            if len(values) < length:
                raise ValueError("a discrete segment is cut off")
            self.entries += values
            return at + 2 + length
        if kind != _LINEAR:
            raise ValueError("a segment of an unknown type")
        if not self.entries:
            raise ValueError("a linear segment has nothing before it")
        # From the last entry, which is not repeated, to the given one.
        line = np.linspace(self.entries[-1], self._items[at + 2], length + 1)
        self.entries += np.rint(line[1:]).astype(int).tolist()
        return at + 3

    def _copy(self, at: int) -> int:
        """Append segments that are elsewhere in the data (PS3.3 C.7.9.2.3)."""
        offset_items = 4 // self._item_bytes
        offset = self._items[at + 2 : at + 2 + offset_items]
        if len(offset) < offset_items:
            raise ValueError("an indirect segment is cut off")
        begin = sum(item << 8 * self._item_bytes * place for place, item in enumerate(offset))
        begin //= self._item_bytes
        for _ in range(self._items[at + 1]):
            if len(self.entries) >= self._count:
                break
            begin = self._segment(begin)
        return at + 2 + offset_items


@dataclass(frozen=True, slots=True)
class Palette:
    """The three tables of PALETTE COLOR as 8-bit colours (PS3.3 C.7.6.3.1.5 and C.7.9).

    Attributes:
        first_mapped: Stored value of the first entry.
        entries: Red, green and blue of each entry, one byte each.
    """

    first_mapped: int
    entries: bytes


@dataclass(frozen=True, slots=True)
class PaletteTable:
    """The table of one colour as it is stored.

    Attributes:
        descriptor: Of the table.
        data: Little-endian bytes, or numbers.
        is_segmented: The data are segments.
    """

    descriptor: Descriptor
    data: bytes | list[int]
    is_segmented: bool


def read_palette(tables: Sequence[PaletteTable], inputs: InputRange) -> Palette | None:
    """Read the tables of the three colours.

    Args:
        tables: Red, green, blue.
        inputs: The stored values.

    Returns:
        The palette; None when a table is too short or damaged.
    """
    colours = [_colour_levels(table) for table in tables]
    complete = [levels for levels in colours if levels is not None]
    if len(complete) < len(colours):
        return None
    length = min(levels.size for levels in complete)
    entries = np.stack([levels[:length] for levels in complete], axis=1)
    first_mapped = _first_mapped(tables[0].descriptor[1], inputs)
    return Palette(first_mapped, entries.tobytes())


def _colour_levels(table: PaletteTable) -> npt.NDArray[np.uint8] | None:
    declared, _, bits = table.descriptor
    count = (declared & 0xFFFF) or _ENTRIES_FOR_ZERO
    if not table.is_segmented:
        entries = _entries(table.data, count)[:count]
    else:
        data = table.data
        if not isinstance(data, bytes):
            data = np.asarray(data, "<u2").tobytes()
        kind = np.dtype("u1" if bits <= _BYTE_BITS else "<u2")
        items = np.frombuffer(data, kind, len(data) // kind.itemsize)
        try:
            entries = expand_segments(items, count)
        except ValueError:
            return None
    if entries.size < count:
        return None
    levels = entries.astype(np.int64)
    # Tables that say 16 bits and hold 8 are common (dcmtk shows them as 8 bits, too).
    if bits > _BYTE_BITS and levels.max() > _LARGEST_BYTE:
        levels >>= _WORD_BITS - _BYTE_BITS
    return np.minimum(levels, _LARGEST_BYTE).astype(np.uint8)
