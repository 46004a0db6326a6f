"""What a header says about the pixels of its frames and how they are shown."""

import io
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.multival import MultiValue

from services.dicom.layout import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from services.dicom.lookup_tables import (
    InputRange,
    LookupTable,
    Palette,
    PaletteTable,
    read_lookup_table,
    read_palette,
)
from services.dicom.values import parse_float, parse_int

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

SHOWN_AS_STORED = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.12.1",
        "1.2.840.10008.5.1.4.1.1.12.2",
        "1.2.840.10008.5.1.4.1.1.12.3",
    }
)
"""SOP classes of X-ray angiography and fluoroscopy (the last one is retired): their modality LUT
leads back to the intensity of the beam, for subtraction, and windows are in stored values (PS3.3
C.8.7.1.1.2). DCMTK and Cornerstone leave it out as well; pydicom does not look."""

MONOCHROME1 = "MONOCHROME1"
PALETTE_COLOR = "PALETTE COLOR"
YBR_FULL_422 = "YBR_FULL_422"


class ValueType(StrEnum):
    """Which element holds the pixels (PS3.3 C.7.6.3, C.7.6.24, C.7.6.25)."""

    INTEGER = "PixelData"
    FLOAT = "FloatPixelData"
    DOUBLE = "DoubleFloatPixelData"


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
        is_stored_in_words: The VR of the pixels is OW, so that samples of 8 bits stand in words.
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
    is_stored_in_words: bool = False
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
    def is_byte_swapped(self) -> bool:
        """Whether each two samples change places: bytes of big-endian words (PS3.5 A.3)."""
        return self.is_stored_in_words and self.is_big_endian and self.bits_allocated == _BYTE_BITS

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
                is_stored_in_words=self._next_bytes[_TAG_BYTES:] == b"OW",
                palette=self._palette() if photometric == PALETTE_COLOR else None,
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
            slope = _number(rescale, "RescaleSlope") or 1.0
            intercept = _number(rescale, "RescaleIntercept") or 0.0
            stored = self._stored_range()
            modality_luts = self._tables(dataset, "ModalityLUTSequence", stored)
            if _text(dataset, "SOPClassUID") in SHOWN_AS_STORED:
                slope, intercept, modality_luts = 1.0, 0.0, ()
            rescaled = stored.rescaled(slope, intercept)
            if modality_luts:
                rescaled = InputRange(0, modality_luts[0].maximum)
            return FrameDisplay(
                is_inverted=photometric == MONOCHROME1 or shape == "INVERSE",
                rescale_slope=slope,
                rescale_intercept=intercept,
                modality_lut=next(iter(modality_luts), None),
                windows=_windows(voi),
                voi_luts=self._tables(voi, "VOILUTSequence", rescaled),
            )

    def geometry(self, frame_index: int) -> FrameGeometry:
        """Return where a frame, 0-based, lies in the patient."""
        with self._parsing:
            plane = self._group(frame_index, "PlanePositionSequence") or self._dataset
            axes = self._group(frame_index, "PlaneOrientationSequence") or self._dataset
            position = _numbers(plane, "ImagePositionPatient")
            orientation = _numbers(axes, "ImageOrientationPatient")
        return FrameGeometry(_complete(position, 3), _complete(orientation, 6))

    def _palette(self) -> Palette | None:
        tables = [self._palette_table(colour) for colour in ("Red", "Green", "Blue")]
        complete = [table for table in tables if table is not None]
        if len(complete) < len(tables):
            return None
        return read_palette(complete, self._stored_range())

    def _palette_table(self, colour: str) -> PaletteTable | None:
        keyword = f"{colour}PaletteColorLookupTable"
        descriptor = _descriptor(self._dataset, f"{keyword}Descriptor")
        plain = self._words(self._dataset, f"{keyword}Data")
        segmented = self._words(self._dataset, f"Segmented{keyword}Data")
        data = segmented if plain is None else plain
        if descriptor is None or data is None:
            return None
        return PaletteTable(descriptor, data, is_segmented=plain is None)

    def _value_type(self) -> ValueType:
        words = np.frombuffer(
            self._next_bytes[:_TAG_BYTES].ljust(_TAG_BYTES, b"\0"),
            "<u2" if self._is_little_endian else ">u2",
        )
        group, element = words.tolist()
        return _VALUE_TYPES.get(group << _WORD_BITS | element, ValueType.INTEGER)

    def _stored_range(self) -> InputRange:
        allocated = _integer(self._dataset, "BitsAllocated") or _WORD_BITS
        bits_stored = _integer(self._dataset, "BitsStored") or allocated
        return InputRange.of_stored(min(max(bits_stored, 1), 64), is_signed=self._is_signed)

    def _tables(
        self, dataset: Dataset, keyword: str, inputs: InputRange
    ) -> tuple[LookupTable, ...]:
        tables = (self._lookup_table(item, inputs) for item in _items(dataset, keyword))
        return tuple(table for table in tables if table is not None)

    def _lookup_table(self, item: Dataset, inputs: InputRange) -> LookupTable | None:
        descriptor = _descriptor(item, "LUTDescriptor")
        data = self._words(item, "LUTData")
        if descriptor is None or data is None:
            return None
        return read_lookup_table(descriptor, data, inputs)

    def _words(self, dataset: Dataset, keyword: str) -> bytes | list[int] | None:
        """Return a binary value as little-endian bytes, or as the numbers that pydicom read."""
        value = _value(dataset, keyword)
        if isinstance(value, bytes):
            if self._is_little_endian:
                return value
            return np.frombuffer(value, ">u2", len(value) // 2).astype("<u2").tobytes()
        try:
            return [int(number) for number in _values(value)] or None
        except (TypeError, ValueError):
            return None

    def _group(self, frame_index: int, keyword: str) -> Dataset | None:
        per_frame = _items(self._dataset, "PerFrameFunctionalGroupsSequence")
        shared = _items(self._dataset, "SharedFunctionalGroupsSequence")
        for group in (*per_frame[frame_index : frame_index + 1], *shared[:1]):
            if items := _items(group, keyword):
                return items[0]
        return None


_TAG_BYTES, _TAG_AND_VR_BYTES = 4, 6
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


def _descriptor(dataset: Dataset, keyword: str) -> tuple[int, int, int] | None:
    numbers = [parse_int(str(value)) for value in _values(_value(dataset, keyword))]
    match numbers:
        case [int(entries), int(first_mapped), int(bits)]:
            return entries, first_mapped, bits
    return None
