"""Headers from files and from Orthanc's answers, by one path over one view of the attributes."""

from collections.abc import Mapping
from typing import Any, BinaryIO

from services.dicom.attributes import Attributes, OrthancAttributes
from services.dicom.deflation import inflated_copy
from services.dicom.header import (
    ImageModule,
    InstanceHeader,
    PatientModule,
    SeriesModule,
    StudyModule,
)
from services.dicom.kept_elements import read_kept_elements
from services.dicom.layout import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    FileLayout,
    WalkLimits,
)
from services.dicom.values import (
    clean_person_name,
    clean_text,
    first_value,
    parse_date,
    parse_float,
    parse_int,
    parse_time,
)

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
HEADER_TAGS = frozenset(
    {
        0x00080005, 0x00080016, 0x00080018, 0x00080020, 0x00080030, 0x00080050, 0x00080060,
        0x00080070, 0x00080080, 0x00080090, 0x00081030, 0x0008103E, 0x00100010, 0x00100020,
        0x00100030, 0x00100040, 0x00180015, 0x00181030, 0x0020000D, 0x0020000E, 0x00200010,
        0x00200011, 0x00200013, 0x00280002, 0x00280004, 0x00280008, 0x00280009, 0x00280010,
        0x00280011,
        0x00280100, 0x00280101, 0x00280103, 0x00281050, 0x00281051, 0x00281052, 0x00281053,
        0x00281056, *_LUT_SEQUENCES, *_FUNCTIONAL_GROUPS,
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
        has_complex_display=photometric_interpretation == "PALETTE COLOR"
        or any(tag in attributes for tag in _LUT_SEQUENCES)
        or _has_display_groups(attributes),
        lacks_number_of_frames=_FRAME_INCREMENT_POINTER in attributes and not frames_text,
    )


def _has_display_groups(attributes: Attributes) -> bool:
    """Tell whether functional groups window or rescale; the first frame speaks for all."""
    return any(
        tag in group
        for sequence in _FUNCTIONAL_GROUPS
        for group in attributes.items(sequence)[:1]
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
