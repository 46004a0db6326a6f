"""What a header says about the pixels of its frames and how they are shown."""

import io
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmread
from pydicom.multival import MultiValue

from services.dicom.layout import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from services.dicom.values import parse_float, parse_int

_ENTRIES_FOR_ZERO = 65_536
"""PS3.3 C.11.1.1.1: zero entries stand for 2^16, which 16 bits can't say."""

_BYTE_BITS = 8
_WORD_BITS = 16

NATIVE_SYNTAXES = frozenset(
    {
        IMPLICIT_VR_LITTLE_ENDIAN,
        EXPLICIT_VR_LITTLE_ENDIAN,
        EXPLICIT_VR_BIG_ENDIAN,
        DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    }
)
"""Transfer syntaxes without encapsulation (PS3.5 A.1, A.2, A.3, A.5)."""

MONOCHROME1 = "MONOCHROME1"
PALETTE_COLOR = "PALETTE COLOR"
YBR_FULL_422 = "YBR_FULL_422"


class ValueType(StrEnum):
    """Which element holds the pixels (PS3.3 C.7.6.3, C.7.6.24, C.7.6.25)."""

    INTEGER = "PixelData"
    FLOAT = "FloatPixelData"
    DOUBLE = "DoubleFloatPixelData"


@dataclass(frozen=True, slots=True)
class Palette:
    """The three tables of PALETTE COLOR as 8-bit colours (PS3.3 C.7.6.3.1.5 and C.7.9).

    Attributes:
        first_mapped: Stored value of the first entry.
        entries: Red, green and blue of each entry, one byte each.
    """

    first_mapped: int
    entries: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameSpan:
    """Where a frame is in native pixel data.

    Attributes:
        begin: First byte, counted from the first byte of the value.
        end: The byte behind the last one.
        bit_offset: Bits from there on that belong to the frame before: 1-bit frames need not end on
            a byte, nor frames of big-endian words on a word.
    """

    begin: int
    end: int
    bit_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelDescription:
    """How the samples of every frame of an instance are stored (PS3.3 C.7.6.3, PS3.5 8).

    Attributes:
        transfer_syntax_uid: How the frames are encoded.
        photometric_interpretation: In capital letters, `""` when absent.
        is_signed: PixelRepresentation: the samples are in two's complement.
        planar_configuration: 1: the planes of a colour follow each other. Native pixels only.
        value_type: The element that holds the pixels.
        is_byte_swapped: Samples of 8 bits are the bytes of big-endian words (PS3.5 A.3): each two
            of them change places.
        palette: Of PALETTE COLOR; None when it is absent or can't be read.
    """

    transfer_syntax_uid: str
    rows: int
    columns: int
    samples_per_pixel: int = 1
    bits_allocated: int = 16
    bits_stored: int = 16
    high_bit: int = 15
    is_signed: bool = False
    planar_configuration: int = 0
    photometric_interpretation: str = "MONOCHROME2"
    value_type: ValueType = ValueType.INTEGER
    is_byte_swapped: bool = False
    palette: Palette | None = None

    @property
    def is_native(self) -> bool:
        """Whether the frames are not encapsulated."""
        return self.transfer_syntax_uid in NATIVE_SYNTAXES

    @property
    def is_big_endian(self) -> bool:
        """Whether native samples begin with their highest byte."""
        return self.transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN

    @property
    def frame_bits(self) -> int:
        """Bits of a native frame; frames follow each other without padding (PS3.5 8.1.1)."""
        pixels = self.rows * self.columns
        if self.photometric_interpretation == YBR_FULL_422:
            # PS3.3 C.7.6.3.1.2: two chrominance samples for every two pixels.
            return pixels * 2 * self.bits_allocated
        return pixels * self.samples_per_pixel * self.bits_allocated

    def frame_span(self, frame_index: int) -> FrameSpan:
        """Return where a frame, 0-based, is in native pixel data."""
        first_bit = frame_index * self.frame_bits
        unit = _WORD_BITS if self.is_byte_swapped else _BYTE_BITS
        begin = first_bit // unit * unit
        end = -(-(first_bit + self.frame_bits) // unit) * unit
        return FrameSpan(
            begin=begin // _BYTE_BITS, end=end // _BYTE_BITS, bit_offset=first_bit - begin
        )


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


class VoiFunction(StrEnum):
    """VOILUTFunction (PS3.3 C.11.2.1.3)."""

    LINEAR = "LINEAR"
    LINEAR_EXACT = "LINEAR_EXACT"
    SIGMOID = "SIGMOID"

    @classmethod
    def of(cls, text: str | None) -> "VoiFunction":
        """Return the function of that name; LINEAR when absent or unknown."""
        try:
            return cls((text or "").strip().upper())
        except ValueError:
            return cls.LINEAR


@dataclass(frozen=True, slots=True)
class Window:
    """A window in output units of the modality LUT; `width` is above 0.

    Attributes:
        explanation: WindowCenterWidthExplanation (0028,1055), such as `BONE`.
    """

    center: float
    width: float
    function: VoiFunction = VoiFunction.LINEAR
    explanation: str | None = None


@dataclass(frozen=True, slots=True)
class FrameDisplay:
    """What turns the stored grey values of one frame into display values (PS3.4 N.2).

    Attributes:
        is_inverted: MONOCHROME1 or PresentationLUTShape INVERSE: the smallest value is white.
        rescale_slope: Output units per stored value, not 0.
        rescale_intercept: Output units.
        modality_lut: Used instead of slope and intercept when it is there.
        windows: All windows of the frame; the first one is shown.
        voi_luts: All VOI LUTs of the frame; the first one is shown, before any window.
    """

    is_inverted: bool = False
    rescale_slope: float = 1.0
    rescale_intercept: float = 0.0
    modality_lut: LookupTable | None = None
    windows: tuple[Window, ...] = ()
    voi_luts: tuple[LookupTable, ...] = ()


@dataclass(frozen=True, slots=True)
class FrameGeometry:
    """Where a frame lies in the patient, in mm of the reference coordinate system.

    Attributes:
        position: ImagePositionPatient: x, y and z of the first pixel's centre; None when absent.
        orientation: ImageOrientationPatient: direction cosines of the rows, then of the columns.
    """

    position: tuple[float, ...] | None = None
    orientation: tuple[float, ...] | None = None


def make_windows(
    centers: Iterable[float | None],
    widths: Iterable[float | None],
    function: str | None,
    explanations: Iterable[str | None] = (),
) -> tuple[Window, ...]:
    """Return the windows of WindowCenter and WindowWidth, without those that mean nothing.

    Args:
        centers: Values of WindowCenter.
        widths: Values of WindowWidth; one of 0 or less means nothing.
        function: VOILUTFunction, for all of them.
        explanations: Values of WindowCenterWidthExplanation.
    """
    return tuple(
        Window(center, width, VoiFunction.of(function), explanation or None)
        for center, width, explanation in zip_longest(centers, widths, explanations)
        if center is not None and width is not None and width > 0
    )


def read_lookup_table(
    descriptor: tuple[int, int, int], data: bytes | list[int], *, is_signed: bool
) -> LookupTable | None:
    """Read LUTDescriptor and LUTData (PS3.3 C.11.1.1.1).

    Args:
        descriptor: Number of entries, first mapped value, bits of an entry.
        data: LUTData as OW bytes (little-endian) or as numbers.
        is_signed: The input values are signed: so is the first mapped value.

    Returns:
        The table; None when it is empty or shorter than its descriptor says.
    """
    declared, first_mapped, bits = descriptor
    count = declared or _ENTRIES_FOR_ZERO
    entries = _entries(data, count)
    if entries.size < count or not _BYTE_BITS <= bits <= _WORD_BITS:
        return None
    return LookupTable(
        _first_mapped(first_mapped, is_signed=is_signed),
        bits,
        entries[:count].astype("<u2").tobytes(),
    )


def _first_mapped(value: int, *, is_signed: bool) -> int:
    return value - _ENTRIES_FOR_ZERO if is_signed and value >= _ENTRIES_FOR_ZERO // 2 else value


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


def read_palette(dataset: Dataset, *, is_little_endian: bool, is_signed: bool) -> Palette | None:
    """Read the palette of a dataset (PS3.3 C.7.6.3.1.5, C.7.6.3.1.6 and C.7.9).

    Args:
        dataset: With the tables of the three colours, plain or segmented.
        is_little_endian: How its binary values are stored.
        is_signed: The stored values are signed: so is the first mapped value.

    Returns:
        The palette; None when a table is missing, too short or damaged.
    """
    colours = []
    first_mapped = 0
    for colour in ("Red", "Green", "Blue"):
        descriptor = _numbers(dataset, f"{colour}PaletteColorLookupTableDescriptor")
        if len(descriptor) != 3 or None in descriptor:  # noqa: PLR2004  # PS3.3 C.7.6.3.1.5
            return None
        declared, first, bits = (int(number or 0) for number in descriptor)
        count = (declared & 0xFFFF) or _ENTRIES_FOR_ZERO
        entries = _palette_entries(dataset, colour, count, bits, is_little_endian=is_little_endian)
        if entries is None:
            return None
        colours.append(entries)
        first_mapped = _first_mapped(first, is_signed=is_signed)
    length = min(entries.size for entries in colours)
    table = np.stack([entries[:length] for entries in colours], axis=1)
    return Palette(first_mapped, table.tobytes())


def _palette_entries(
    dataset: Dataset, colour: str, count: int, bits: int, *, is_little_endian: bool
) -> npt.NDArray[np.uint8] | None:
    plain = _words(
        dataset, f"{colour}PaletteColorLookupTableData", is_little_endian=is_little_endian
    )
    if plain is not None:
        entries = _entries(plain, count)[:count]
    else:
        segmented = _words(
            dataset,
            f"Segmented{colour}PaletteColorLookupTableData",
            is_little_endian=is_little_endian,
        )
        if segmented is None:
            return None
        if not isinstance(segmented, bytes):
            segmented = np.asarray(segmented, "<u2").tobytes()
        kind = "u1" if bits <= _BYTE_BITS else "<u2"
        items = np.frombuffer(segmented, kind, len(segmented) // np.dtype(kind).itemsize)
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


_LARGEST_BYTE = 255


class DisplayHeader:
    """The header of one file, from which each frame's attributes are read; by any thread.

    pydicom parses sequences when they are first used: then `frame` takes long.
    """

    def __init__(self, header: bytes) -> None:
        """Parse a file's bytes up to its PixelData; a cut end is no fault.

        Raises:
            InvalidDicomError: The bytes are no DICOM file.
        """
        stream = io.BytesIO(header)
        self._dataset = dcmread(stream, stop_before_pixels=True, force=True)
        # pydicom stops at the element of the pixels, when it is there.
        self._next_bytes = header[stream.tell() : stream.tell() + _TAG_AND_VR_BYTES]
        self._parsing = threading.Lock()
        self._is_signed = _integer(self._dataset, "PixelRepresentation") == 1
        # Where the header ends before any element, pydicom knows no encoding.
        self._is_little_endian = self._dataset.original_encoding[1] is not False

    def description(self, transfer_syntax_uid: str | None = None) -> PixelDescription:
        """Return how the samples of all frames are stored.

        Args:
            transfer_syntax_uid: Used when the file has no meta header.
        """
        with self._parsing:
            dataset = self._dataset
            meta = getattr(dataset, "file_meta", Dataset())
            syntax = str(_value(meta, "TransferSyntaxUID") or transfer_syntax_uid or "")
            photometric = photometric_interpretation(_text(dataset, "PhotometricInterpretation"))
            value_type = self._value_type()
            allocated = _integer(dataset, "BitsAllocated") or 0
            stored = _integer(dataset, "BitsStored") or allocated
            high_bit = _integer(dataset, "HighBit")
            if high_bit is None or not stored - 1 <= high_bit < allocated:
                # Without a HighBit that makes sense the used bits are the low ones.
                high_bit = stored - 1
            return PixelDescription(
                transfer_syntax_uid=syntax or EXPLICIT_VR_LITTLE_ENDIAN,
                rows=_integer(dataset, "Rows") or 0,
                columns=_integer(dataset, "Columns") or 0,
                samples_per_pixel=_integer(dataset, "SamplesPerPixel") or 1,
                bits_allocated=allocated,
                bits_stored=stored,
                high_bit=high_bit,
                is_signed=self._is_signed,
                planar_configuration=_integer(dataset, "PlanarConfiguration") or 0,
                photometric_interpretation=photometric,
                value_type=value_type,
                is_byte_swapped=allocated == _BYTE_BITS
                and syntax == EXPLICIT_VR_BIG_ENDIAN
                and self._next_bytes[4:] == b"OW",
                palette=read_palette(
                    dataset, is_little_endian=self._is_little_endian, is_signed=self._is_signed
                )
                if photometric == PALETTE_COLOR
                else None,
            )

    def frame(self, frame_index: int) -> FrameDisplay:
        """Return the display attributes of a frame, 0-based.

        Functional groups (PS3.3 C.7.6.16) go before the attributes of the dataset, a frame's own
        group before the shared one.
        """
        with self._parsing:
            dataset = self._dataset
            rescale = self._group(frame_index, "PixelValueTransformationSequence") or dataset
            voi = self._group(frame_index, "FrameVOILUTSequence") or dataset
            photometric = photometric_interpretation(_text(dataset, "PhotometricInterpretation"))
            shape = (_text(dataset, "PresentationLUTShape") or "").upper()
            return FrameDisplay(
                is_inverted=photometric == MONOCHROME1 or shape == "INVERSE",
                rescale_slope=_number(rescale, "RescaleSlope") or 1.0,
                rescale_intercept=_number(rescale, "RescaleIntercept") or 0.0,
                modality_lut=next(iter(self._tables(dataset, "ModalityLUTSequence")), None),
                windows=_windows(voi),
                voi_luts=self._tables(voi, "VOILUTSequence"),
            )

    def geometry(self, frame_index: int) -> FrameGeometry:
        """Return where a frame, 0-based, lies in the patient."""
        with self._parsing:
            plane = self._group(frame_index, "PlanePositionSequence") or self._dataset
            axes = self._group(frame_index, "PlaneOrientationSequence") or self._dataset
            position = _numbers(plane, "ImagePositionPatient")
            orientation = _numbers(axes, "ImageOrientationPatient")
        return FrameGeometry(_complete(position, 3), _complete(orientation, 6))

    def _value_type(self) -> ValueType:
        words = np.frombuffer(
            self._next_bytes[:4].ljust(4, b"\0"), "<u2" if self._is_little_endian else ">u2"
        )
        group, element = words.tolist()
        return _VALUE_TYPES.get(group << _WORD_BITS | element, ValueType.INTEGER)

    def _tables(self, dataset: Dataset, keyword: str) -> tuple[LookupTable, ...]:
        tables = (
            _lookup_table(item, is_signed=self._is_signed, is_little_endian=self._is_little_endian)
            for item in _items(dataset, keyword)
        )
        return tuple(table for table in tables if table is not None)

    def _group(self, frame_index: int, keyword: str) -> Dataset | None:
        per_frame = _items(self._dataset, "PerFrameFunctionalGroupsSequence")
        shared = _items(self._dataset, "SharedFunctionalGroupsSequence")
        for group in (*per_frame[frame_index : frame_index + 1], *shared[:1]):
            if items := _items(group, keyword):
                return items[0]
        return None


_TAG_AND_VR_BYTES = 6
_VALUE_TYPES = {0x7FE00008: ValueType.FLOAT, 0x7FE00009: ValueType.DOUBLE}


def photometric_interpretation(text: str | None) -> str:
    """Return PhotometricInterpretation in capital letters, `""` when absent.

    CS values have no small letters (PS3.5 6.2); files have.
    """
    return (text or "").strip(" \0").upper()


def _complete(numbers: list[float | None], count: int) -> tuple[float, ...] | None:
    found = tuple(number for number in numbers if number is not None)
    return found if len(numbers) == len(found) == count else None


def _windows(dataset: Dataset) -> tuple[Window, ...]:
    explanations = _value(dataset, "WindowCenterWidthExplanation")
    return make_windows(
        _numbers(dataset, "WindowCenter"),
        _numbers(dataset, "WindowWidth"),
        _text(dataset, "VOILUTFunction"),
        [str(text) for text in _values(explanations)],
    )


def _value(dataset: Dataset, keyword: str) -> Any:  # noqa: ANN401  # pydicom's own type
    try:
        return dataset.get(keyword)
    except Exception:  # noqa: BLE001  # pydicom raises whatever damage makes it raise
        return None


def _values(value: object) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, MultiValue | list | tuple) else [value]


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    value = _value(dataset, keyword)
    if value is None or isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
        return []
    return [item for item in value if isinstance(item, Dataset)]


def _numbers(dataset: Dataset, keyword: str) -> list[float | None]:
    return [parse_float(str(value)) for value in _values(_value(dataset, keyword))]


def _number(dataset: Dataset, keyword: str) -> float | None:
    return next(iter(_numbers(dataset, keyword)), None)


def _integer(dataset: Dataset, keyword: str) -> int | None:
    values = _values(_value(dataset, keyword))
    return parse_int(str(values[0])) if values else None


def _text(dataset: Dataset, keyword: str) -> str | None:
    values = _values(_value(dataset, keyword))
    return str(values[0]) if values else None


def _words(dataset: Dataset, keyword: str, *, is_little_endian: bool) -> bytes | list[int] | None:
    """Return a binary value as little-endian bytes, or as the numbers that pydicom made of it."""
    value = _value(dataset, keyword)
    if value is None:
        return None
    if isinstance(value, bytes):
        if is_little_endian:
            return value
        return np.frombuffer(value, ">u2", len(value) // 2).astype("<u2").tobytes()
    try:
        return [int(number) for number in _values(value)]
    except (TypeError, ValueError):
        return None


def _lookup_table(item: Dataset, *, is_signed: bool, is_little_endian: bool) -> LookupTable | None:
    descriptor = _numbers(item, "LUTDescriptor")
    data = _words(item, "LUTData", is_little_endian=is_little_endian)
    if len(descriptor) != 3 or None in descriptor or data is None:  # noqa: PLR2004  # C.11.1.1.1
        return None
    count, first_mapped, bits = (int(value or 0) for value in descriptor)
    return read_lookup_table((count & 0xFFFF, first_mapped, bits), data, is_signed=is_signed)
