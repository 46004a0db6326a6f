"""Headers from files and from Orthanc's answers, by one path over one view of the attributes."""

import io
import struct
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, Protocol

from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

from services.dicom.deflation import inflated_copy
from services.dicom.element_bytes import SHORT_VRS, bytes_text
from services.dicom.header import (
    ImageModule,
    InstanceHeader,
    PatientModule,
    SeriesModule,
    StudyModule,
)
from services.dicom.layout import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    FileLayout,
    WalkLimits,
)
from services.dicom.pydicom_reading import read_elements
from services.dicom.values import (
    clean_person_name,
    clean_text,
    decode,
    encodings_of,
    first_value,
    parse_date,
    parse_float,
    parse_int,
    parse_time,
)
from services.errors import FileRejected

_NUMBER_FORMATS = {
    "US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "UV": "Q", "SV": "q",
}  # fmt: skip
"""Binary VRs (PS3.5 6.2) as the struct module names them."""


class Attributes(Protocol):
    """The attributes of a dataset or of an item, by tag."""

    def text(self, tag: int) -> str | None:
        """Return the values as text, separated by backslashes; None when absent or no text."""

    def items(self, tag: int) -> Sequence["Attributes"]:
        """Return the items of a sequence; none when absent or no sequence."""

    def __contains__(self, tag: int) -> bool:
        """Tell whether the attribute is there, with or without a value."""


class DatasetAttributes:
    """Attributes of a pydicom dataset, read from its raw bytes: bad values are never an error."""

    def __init__(self, dataset: Dataset, encodings: list[str] | None = None) -> None:
        self._dataset = dataset
        # Kept apart, for pydicom converts some elements while it reads a sequence.
        self._elements: dict[int, DataElement | RawDataElement] = {
            int(tag): element for tag, element in dataset.items()
        }
        self._encodings = encodings or ["latin_1"]
        charset = self.text(0x00080005)
        if charset is not None:
            self._encodings = encodings_of(charset)

    def __contains__(self, tag: int) -> bool:
        return tag in self._elements

    def text(self, tag: int) -> str | None:
        """Return the values as text; binary numbers are written out."""
        raw = self._elements.get(tag)
        if not isinstance(raw, RawDataElement):
            return None
        value = raw.value or b""
        return _decoded_text(
            self._vr(tag), value, self._encodings, is_little_endian=raw.is_little_endian
        )

    def numbers(self, tag: int, code: str) -> list[int]:
        """Return a binary value as the integers that the struct module calls `code`."""
        raw = self._elements.get(tag)
        if not isinstance(raw, RawDataElement):
            return []
        text = _numbers(raw.value or b"", code, is_little_endian=raw.is_little_endian)
        return [int(number) for number in text.split("\\") if number]

    def element(self, tag: int) -> DataElement | RawDataElement | None:
        """Return the element as pydicom keeps it: raw, or a sequence that it has read."""
        return self._elements.get(tag)

    def vrs(self) -> list[tuple[int, str]]:
        """Return the tags and VRs, in order; VRs that are missing come from the dictionary."""
        return [(tag, self._vr(tag)) for tag in self._elements]

    def _vr(self, tag: int) -> str:
        vr = str(self._elements[tag].VR or "UN")
        return vr if vr != "UN" else _dictionary_vr(tag)

    def items(self, tag: int) -> list["DatasetAttributes"]:
        """Return the items; a sequence that pydicom can't read has none."""
        if tag not in self._elements:
            return []
        try:
            value = self._dataset[tag].value
        except Exception:  # noqa: BLE001 - pydicom raises whatever sloppy items lead it to
            return []
        if not isinstance(value, list) and not hasattr(value, "__iter__"):
            return []
        return [
            DatasetAttributes(item, self._encodings) for item in value if isinstance(item, Dataset)
        ]


class PlainAttributes:
    """Attributes without items: their VRs and values by tag, as they stand in a file."""

    def __init__(self, values: Mapping[int, tuple[str, bytes]], *, is_little_endian: bool) -> None:
        self._values = values
        self._is_little_endian = is_little_endian
        self._encodings = ["latin_1"]
        self._encodings = encodings_of(self.text(0x00080005))

    def __contains__(self, tag: int) -> bool:
        return tag in self._values

    def text(self, tag: int) -> str | None:
        """Return the values as text; binary numbers are written out."""
        if tag not in self._values:
            return None
        vr, value = self._values[tag]
        return _decoded_text(vr, value, self._encodings, is_little_endian=self._is_little_endian)

    def items(self, _tag: int) -> Sequence[Attributes]:
        """Return no items: there are no sequences."""
        return []


class OrthancAttributes:
    """Attributes as Orthanc's full tag format tells them (`GET /series/{id}/instances-tags`)."""

    def __init__(self, tags: Mapping[str, Any]) -> None:
        self._tags = tags

    def __contains__(self, tag: int) -> bool:
        return _orthanc_name(tag) in self._tags

    def text(self, tag: int) -> str | None:
        """Return the values as text; None for what Orthanc leaves out as binary or too long."""
        value = self._tags.get(_orthanc_name(tag), {}).get("Value")
        return value if isinstance(value, str) else None

    def items(self, tag: int) -> Sequence[Attributes]:
        """Return the items of a sequence."""
        value = self._tags.get(_orthanc_name(tag), {}).get("Value")
        return [OrthancAttributes(item) for item in value] if isinstance(value, list) else []


def _orthanc_name(tag: int) -> str:
    return f"{tag >> 16:04x},{tag & 0xFFFF:04x}"


def _dictionary_vr(tag: int) -> str:
    try:
        return dictionary_VR(tag).split(" or ")[0]
    except KeyError:
        return "UN"


def _decoded_text(
    vr: str, value: bytes, encodings: Sequence[str], *, is_little_endian: bool
) -> str:
    code = _NUMBER_FORMATS.get(vr)
    if code is not None:
        return _numbers(value, code, is_little_endian=is_little_endian)
    return decode(value, encodings)


def _numbers(value: bytes, code: str, *, is_little_endian: bool) -> str:
    size = struct.calcsize(code)
    count = len(value) // size
    order = "<" if is_little_endian else ">"
    return "\\".join(map(str, struct.unpack_from(f"{order}{count}{code}", value)))


_CHARACTER_SET = 0x00080005
_HEAD_BYTES = 8
"""Tag, VR and length of 16 bits."""
_MOST_BYTES = 128 * 1024 * 1024
"""Of all that is read, which is in memory: functional groups of 100,000 frames have less."""
_SPAN_BYTES = 64 * 1024
"""Elements that stand this close are read at once, with what stands between them."""


def read_kept_elements(file: BinaryIO, layout: FileLayout) -> Attributes:
    """Read the elements that the walk kept, and no others.

    Args:
        file: The file, or its inflated copy; its position is not kept.
        layout: What `walk` said about it.

    Raises:
        FileRejected: TOO_MANY_ELEMENTS when they are too large, MALFORMED when pydicom can't read
            what the walk could.
    """
    size = sum(end - begin for begin, end in layout.kept.values())
    if size > _MOST_BYTES:
        found, most = bytes_text(size), bytes_text(_MOST_BYTES)
        message = f"The attributes of this file have {found}; {most} are the limit."
        raise FileRejected("TOO_MANY_ELEMENTS", message)
    elements = _kept_bytes(file, layout)
    if not layout.is_implicit_vr:
        plain = _plain_attributes(elements, is_little_endian=layout.is_little_endian)
        if plain is not None:
            return plain
    return DatasetAttributes(read_elements(io.BytesIO(b"".join(elements)), layout))


def _kept_bytes(file: BinaryIO, layout: FileLayout) -> list[bytes]:
    places = sorted(layout.kept.values())
    if not places or places[-1][1] - places[0][0] > _SPAN_BYTES:
        return [_bytes_at(file, begin, end) for begin, end in places]
    start = places[0][0]
    span = _bytes_at(file, start, places[-1][1])
    return [span[begin - start : end - start] for begin, end in places]


def _bytes_at(file: BinaryIO, begin: int, end: int) -> bytes:
    file.seek(begin)
    return file.read(end - begin)


def _plain_attributes(elements: list[bytes], *, is_little_endian: bool) -> PlainAttributes | None:
    """Read elements without pydicom, which takes 4 us for each and does no more about these.

    Returns:
        None when an element is not plain: a sequence, an unknown VR, or a character set that
        pydicom does not know and might fail on.
    """
    unpack = struct.Struct("<HH2s" if is_little_endian else ">HH2s").unpack_from
    values = {}
    for element in elements:
        group, number, vr = unpack(element)
        if vr not in SHORT_VRS:
            return None
        values[group << 16 | number] = vr.decode(), element[_HEAD_BYTES:]
    if _CHARACTER_SET in values and not _is_known(*values[_CHARACTER_SET]):
        return None
    return PlainAttributes(values, is_little_endian=is_little_endian)


def _is_known(vr: str, character_sets: bytes) -> bool:
    terms = character_sets.rstrip(b" \0").decode("latin_1").split("\\")
    return vr == "CS" and all(term in python_encoding for term in terms)


_TEXT_CHARACTERS = 1_024
"""Kept of a text. LO has 64 and ST 1,024 (PS3.5 6.2); a file may hold megabytes all the same, and
those of a whole series are kept together."""
_UID_CHARACTERS = 65
"""Kept of a UID: one more than is valid (PS3.5 9.1), so that what is too long stays invalid."""
_PIXEL_DATA_TAGS = (0x7FE00010, 0x7FE00008, 0x7FE00009)
_FUNCTIONAL_GROUPS = (0x52009229, 0x52009230)
"""Shared and per-frame functional groups (PS3.3 C.7.6.16)."""
_DISPLAY_GROUPS = (0x00289145, 0x00289132)
"""PixelValueTransformationSequence, FrameVOILUTSequence."""
_LUT_SEQUENCES = (0x00283000, 0x00283010)
"""ModalityLUTSequence, VOILUTSequence."""
_FRAME_INCREMENT_POINTER = 0x00280009
_PLANAR_CONFIGURATION = 0x00280006
_PRESENTATION_LUT_SHAPE = 0x20500020
HEADER_TAGS = frozenset(
    {
        0x00080005, 0x00080016, 0x00080018, 0x00080020, 0x00080030, 0x00080050, 0x00080060,
        0x00080070, 0x00080080, 0x00080090, 0x00081030, 0x0008103E, 0x00100010, 0x00100020,
        0x00100021, 0x00100030, 0x00100040, 0x00180015, 0x00181030, 0x0020000D, 0x0020000E,
        0x00200010, 0x00200011, 0x00200013, 0x00280002, 0x00280004, 0x00280008, 0x00280009,
        0x00280010, _PLANAR_CONFIGURATION, 0x00280011,
        0x00280100, 0x00280101, 0x00280102, 0x00280103, 0x00281050, 0x00281051,
        0x00281052, 0x00281053,
        0x00281056, _PRESENTATION_LUT_SHAPE, *_LUT_SEQUENCES, *_FUNCTIONAL_GROUPS,
    }
)  # fmt: skip
"""What `read_header` needs `walk` to keep."""


def read_header(
    file: BinaryIO, layout: FileLayout, limits: WalkLimits | None = None
) -> InstanceHeader:
    """Read the header of a file that `walk` accepted; its pixel data is not touched.

    Args:
        file: The file, seekable; its position is not kept.
        layout: What `walk` said about it, with `HEADER_TAGS` kept.
        limits: Those of the walk; used for deflated files only.

    Raises:
        FileRejected: TOO_MANY_ELEMENTS or MALFORMED; see `read_kept_elements`.
    """
    if not layout.is_deflated:
        return _read_dataset(file, layout)
    with inflated_copy(file, layout.dataset_offset, limits or WalkLimits()) as inflated:
        return _read_dataset(inflated, layout)


def _read_dataset(file: BinaryIO, layout: FileLayout) -> InstanceHeader:
    attributes = read_kept_elements(file, layout)
    pixel_data_bytes = None
    if layout.pixel_data_offset is not None and not layout.is_deflated:
        pixel_data_bytes = layout.end_offset - layout.pixel_data_offset
    return _header(
        attributes,
        has_pixel_data=layout.pixel_data_offset is not None,
        sop_class_uid=_uid(attributes, 0x00080016) or None,
        transfer_syntax_uid=layout.transfer_syntax_uid,
        pixel_data_bytes=pixel_data_bytes,
        frame_fragments=layout.encapsulated_frames,
    )


def header_from_orthanc(
    tags: Mapping[str, Any],
    *,
    transfer_syntax_uid: str | None,
    sop_class_uid: str | None = None,
    pixel_data_offset: int | None = None,
    file_size: int | None = None,
) -> InstanceHeader:
    """Read a header from what Orthanc tells about an instance.

    Args:
        tags: One value of `GET /series/{id}/instances-tags` in its full format, the only one that
            tells the tags' types and needs no dictionary: `{"0010,0010": {"Value": "Doe"}}`.
        transfer_syntax_uid: Metadata `TransferSyntax`; missing for syntaxes that it doesn't know.
        sop_class_uid: Metadata `SopClassUid`, for files whose dataset has none.
        pixel_data_offset: Metadata `PixelDataOffset`, the element's first byte, from 1.9.1 on;
            missing for deflated files and such without meta header.
        file_size: `FileSize`, in bytes.
    """
    attributes = OrthancAttributes(tags)
    pixel_data_bytes = None
    if pixel_data_offset is not None and file_size is not None:
        head_bytes = 8 if transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN else 12
        pixel_data_bytes = max(0, file_size - pixel_data_offset - head_bytes)
    if transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        pixel_data_bytes = None
    return _header(
        attributes,
        has_pixel_data=any(tag in attributes for tag in _PIXEL_DATA_TAGS),
        sop_class_uid=_uid(attributes, 0x00080016) or clean_text(sop_class_uid),
        transfer_syntax_uid=clean_text(transfer_syntax_uid),
        pixel_data_bytes=pixel_data_bytes,
        frame_fragments=None,
    )


def _header(
    attributes: Attributes,
    *,
    has_pixel_data: bool,
    sop_class_uid: str | None,
    transfer_syntax_uid: str | None,
    pixel_data_bytes: int | None,
    frame_fragments: int | None,
) -> InstanceHeader:
    return InstanceHeader(
        patient=_patient(attributes),
        study=_study(attributes),
        series=_series(attributes),
        image=_image(attributes, has_pixel_data=has_pixel_data),
        sop_instance_uid=_uid(attributes, 0x00080018),
        sop_class_uid=sop_class_uid and sop_class_uid[:_UID_CHARACTERS],
        transfer_syntax_uid=transfer_syntax_uid and transfer_syntax_uid[:_UID_CHARACTERS],
        instance_number=parse_int(attributes.text(0x00200013)),
        pixel_data_bytes=pixel_data_bytes,
        frame_fragments=frame_fragments,
    )


def _patient(attributes: Attributes) -> PatientModule:
    return PatientModule(
        patient_id=_text(attributes, 0x00100020) or "",
        patient_name=_name(attributes, 0x00100010),
        patient_birth_date=parse_date(attributes.text(0x00100030)),
        patient_sex=_text(attributes, 0x00100040),
        issuer_of_patient_id=_text(attributes, 0x00100021),
    )


def _study(attributes: Attributes) -> StudyModule:
    return StudyModule(
        study_instance_uid=_uid(attributes, 0x0020000D),
        study_id=_text(attributes, 0x00200010),
        study_date=parse_date(attributes.text(0x00080020)),
        study_time=parse_time(attributes.text(0x00080030)),
        study_description=_text(attributes, 0x00081030),
        accession_number=_text(attributes, 0x00080050),
        referring_physician_name=_name(attributes, 0x00080090),
        institution_name=_text(attributes, 0x00080080),
    )


def _series(attributes: Attributes) -> SeriesModule:
    return SeriesModule(
        series_instance_uid=_uid(attributes, 0x0020000E),
        series_number=parse_int(attributes.text(0x00200011)),
        modality=_text(attributes, 0x00080060),
        series_description=_text(attributes, 0x0008103E),
        body_part_examined=_text(attributes, 0x00180015),
        protocol_name=_text(attributes, 0x00181030),
        manufacturer=_text(attributes, 0x00080070),
    )


def _image(attributes: Attributes, *, has_pixel_data: bool) -> ImageModule:
    photometric_interpretation = _first(attributes, 0x00280004)
    frames_text = first_value(attributes.text(0x00280008))
    return ImageModule(
        has_pixel_data=has_pixel_data,
        rows=parse_int(attributes.text(0x00280010)),
        columns=parse_int(attributes.text(0x00280011)),
        samples_per_pixel=parse_int(attributes.text(0x00280002)),
        bits_allocated=parse_int(attributes.text(0x00280100)),
        bits_stored=parse_int(attributes.text(0x00280101)),
        pixel_representation=parse_int(attributes.text(0x00280103)),
        photometric_interpretation=photometric_interpretation,
        number_of_frames=parse_int(frames_text) if frames_text else 1,
        window_center=parse_float(attributes.text(0x00281050)),
        window_width=parse_float(attributes.text(0x00281051)),
        voi_lut_function=_first(attributes, 0x00281056),
        rescale_slope=parse_float(attributes.text(0x00281053)),
        rescale_intercept=parse_float(attributes.text(0x00281052)),
        has_complex_display=_has_complex_display(attributes),
        lacks_number_of_frames=_FRAME_INCREMENT_POINTER in attributes and not frames_text,
    )


def _has_complex_display(attributes: Attributes) -> bool:
    """Tell whether showing the frames needs attributes that are not indexed."""
    # BitsStored and HighBit.
    stored, high_bit = (parse_int(attributes.text(tag)) for tag in (0x00280101, 0x00280102))
    photometric = (_first(attributes, 0x00280004) or "").upper()
    return (
        photometric == "PALETTE COLOR"
        or parse_int(attributes.text(_PLANAR_CONFIGURATION)) == 1
        or stored is None
        or (high_bit is not None and high_bit != stored - 1)
        or _first(attributes, _PRESENTATION_LUT_SHAPE) == "INVERSE"
        or any(tag in attributes for tag in _LUT_SEQUENCES)
        or _has_display_groups(attributes)
    )


def _has_display_groups(attributes: Attributes) -> bool:
    """Tell whether functional groups window or rescale some frame."""
    return any(
        tag in group
        for sequence in _FUNCTIONAL_GROUPS
        for group in attributes.items(sequence)
        for tag in _DISPLAY_GROUPS
    )


def _bounded(attributes: Attributes, tag: int) -> str | None:
    text = attributes.text(tag)
    return text and text[:_TEXT_CHARACTERS]


def _text(attributes: Attributes, tag: int) -> str | None:
    return clean_text(_bounded(attributes, tag))


def _name(attributes: Attributes, tag: int) -> str | None:
    return clean_person_name(_bounded(attributes, tag))


def _first(attributes: Attributes, tag: int) -> str | None:
    return clean_text(first_value(_bounded(attributes, tag)))


def _uid(attributes: Attributes, tag: int) -> str:
    return (attributes.text(tag) or "").strip(" \0")[:_UID_CHARACTERS]
