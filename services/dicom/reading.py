"""The header of one SOP instance for the index, from the bytes of its file.

Uploads, arrivals, imports and comparisons use the same reader, so that the way of a file makes no
difference. Orthanc is never asked for attributes: it loses letters of some character sets, and
crashes when it reads a file with 60 nested sequences.
"""

from collections.abc import Callable
from typing import BinaryIO, TypeVar

from services.dicom.deflation import inflated_copy
from services.dicom.display import SHOWN_AS_STORED
from services.dicom.element_bytes import bytes_text
from services.dicom.elements import Elements, kept_elements
from services.dicom.fragments import count_frames
from services.dicom.header import (
    AcquisitionModule,
    FileWindow,
    GeometryModule,
    ImageModule,
    InstanceHeader,
    PatientModule,
    SeriesModule,
    StudyModule,
)
from services.dicom.layout import FileLayout, WalkLimits
from services.dicom.person_names import clean_person_name
from services.dicom.values import (
    clean_identifier,
    clean_text,
    first_value,
    parse_date,
    parse_datetime,
    parse_float,
    parse_int,
    parse_time,
    split_values,
)
from services.errors import FileRejected

_HEADER_MAX_BYTES = 128 * 1024 * 1024
"""Of all kept elements together; functional groups of 100,000 frames are smaller."""
_TEXT_CHARACTERS = 1_024
"""Kept of a text. LO allows 64 and ST 1,024 (PS3.5 6.2). A file may have megabytes nevertheless,
and the headers of a whole series are in memory at the same time."""
_UID_CHARACTERS = 65
"""Kept of a UID: one more than is valid (PS3.5 9.1), so that a longer one stays invalid."""
_BYTE_BITS = 8
_MAX_VALUES = 32
"""Kept of a multi-valued attribute such as windows, echo numbers or image types."""
_SHARED_GROUPS, _FRAME_GROUPS = 0x52009229, 0x52009230
"""Shared and per-frame functional groups (PS3.3 C.7.6.16)."""
_PIXEL_MEASURES, _PLANE_POSITION, _PLANE_ORIENTATION = 0x00289110, 0x00209113, 0x00209116
_PIXEL_VALUE_TRANSFORMATION, _FRAME_VOI_LUT = 0x00289145, 0x00289132
_FRAME_CONTENT, _FRAME_ANATOMY = 0x00209111, 0x00209071
_LUT_SEQUENCES = (0x00283000, 0x00283010)
"""ModalityLUTSequence, VOILUTSequence."""
_PALETTE = tuple(
    (0x00281101 + channel, 0x00281201 + channel, 0x00281221 + channel) for channel in range(3)
)
"""Descriptor, data and segmented data of the red, green and blue palette (PS3.3 C.7.9)."""
_FRAME_INCREMENT_POINTER = 0x00280009
_PLANAR_CONFIGURATION, _HIGH_BIT, _PRESENTATION_LUT_SHAPE = 0x00280006, 0x00280102, 0x20500020
HEADER_TAGS = frozenset(
    {
        0x00080005, 0x00080008, 0x00080016, 0x00080018, 0x00080020, 0x00080021, 0x00080022,
        0x00080030, 0x00080031, 0x00080032, 0x0008002A, 0x00080050, 0x00080060, 0x00080070,
        0x00080080, 0x00080090, 0x00081010, 0x00081030, 0x0008103E, 0x00081050, 0x00082144,
        0x00100010, 0x00100020, 0x00100021, 0x00100030, 0x00100040, 0x00101010,
        0x00180015, 0x00180050, 0x00180086, 0x00180088, 0x00181030, 0x00181063, 0x00181164,
        0x00185101, 0x0020000D, 0x0020000E, 0x00200010, 0x00200011, 0x00200012, 0x00200013,
        0x00200020, 0x00200032, 0x00200037, 0x00200052, 0x00200060, 0x00200062, 0x00200100,
        0x00201041, 0x00280002, 0x00280004, 0x00280008, _FRAME_INCREMENT_POINTER, 0x00280010,
        0x00280011, 0x00280030, 0x00280034, 0x00280100, 0x00280101, 0x00280103, 0x00280301,
        0x00281050, 0x00281051, 0x00281052, 0x00281053, 0x00281054, 0x00281055, 0x00281056,
        0x00282110, 0x00282112, _PLANAR_CONFIGURATION, _HIGH_BIT, _PRESENTATION_LUT_SHAPE,
        *_LUT_SEQUENCES, *_PALETTE[0], *_PALETTE[1], *_PALETTE[2], _SHARED_GROUPS, _FRAME_GROUPS,
    }
)  # fmt: skip
"""What `read_header` needs `walk` to keep."""


def read_header(
    file: BinaryIO, layout: FileLayout, limits: WalkLimits | None = None
) -> InstanceHeader:
    """Read the header of a file that `walk` has accepted.

    Args:
        file: The file, seekable; its position changes.
        layout: What `walk` found in it, with `HEADER_TAGS` kept.
        limits: Those of the walk; used for deflated files only.

    Raises:
        FileRejected: TOO_MANY_ELEMENTS when the elements that are kept are too long.
    """
    if not layout.is_deflated:
        return _read_header(file, layout)
    with inflated_copy(file, layout.dataset_offset, limits or WalkLimits()) as inflated:
        return _read_header(inflated, layout)


def _read_header(file: BinaryIO, layout: FileLayout) -> InstanceHeader:
    size = sum(element.end - element.begin for element in layout.kept)
    if size > _HEADER_MAX_BYTES:
        found, most = bytes_text(size), bytes_text(_HEADER_MAX_BYTES)
        message = f"The attributes of this file have {found}; {most} are the limit."
        raise FileRejected("TOO_MANY_ELEMENTS", message)
    elements = kept_elements(file, layout)
    shared = elements.first_item(_SHARED_GROUPS)
    groups = [group for group in (shared, elements.first_item(_FRAME_GROUPS)) if group is not None]
    pixel_data_bytes = None
    if layout.pixel_data_offset is not None and not layout.is_deflated:
        pixel_data_bytes = layout.end_offset - layout.pixel_data_offset
    syntax = layout.transfer_syntax_uid
    image = _image(elements, groups, layout)
    return InstanceHeader(
        patient=_patient(elements),
        study=_study(elements),
        series=_series(elements),
        image=image,
        geometry=_geometry(elements, groups),
        acquisition=_acquisition(elements, groups),
        sop_instance_uid=_uid(elements, 0x00080018),
        identifying_patient_id=(elements.text(0x00100020) or "").rstrip(" \0"),
        sop_class_uid=_uid(elements, 0x00080016) or None,
        transfer_syntax_uid=syntax and syntax[:_UID_CHARACTERS],
        instance_number=parse_int(elements.text(0x00200013)),
        pixel_data_bytes=pixel_data_bytes,
        frame_fragments=count_frames(file, layout, max(image.number_of_frames or 1, 1)),
    )


def _patient(elements: Elements) -> PatientModule:
    return PatientModule(
        patient_id=clean_identifier(_bounded(elements, 0x00100020)),
        patient_name=_name(elements, 0x00100010),
        patient_birth_date=parse_date(elements.text(0x00100030)),
        patient_sex=_text(elements, 0x00100040),
        issuer_of_patient_id=_text(elements, 0x00100021),
    )


def _study(elements: Elements) -> StudyModule:
    return StudyModule(
        study_instance_uid=_uid(elements, 0x0020000D),
        study_id=_text(elements, 0x00200010),
        study_date=parse_date(elements.text(0x00080020)),
        study_time=parse_time(elements.text(0x00080030)),
        study_description=_text(elements, 0x00081030),
        accession_number=_text(elements, 0x00080050),
        referring_physician_name=_name(elements, 0x00080090),
        institution_name=_text(elements, 0x00080080),
        patient_age=_text(elements, 0x00101010),
    )


def _series(elements: Elements) -> SeriesModule:
    return SeriesModule(
        series_instance_uid=_uid(elements, 0x0020000E),
        series_number=parse_int(elements.text(0x00200011)),
        modality=_text(elements, 0x00080060),
        series_description=_text(elements, 0x0008103E),
        body_part_examined=_text(elements, 0x00180015),
        protocol_name=_text(elements, 0x00181030),
        manufacturer=_text(elements, 0x00080070),
        series_date=parse_date(elements.text(0x00080021)),
        series_time=parse_time(elements.text(0x00080031)),
        performing_physician_name=_name(elements, 0x00081050),
        station_name=_text(elements, 0x00081010),
    )


def _image(elements: Elements, groups: list[Elements], layout: FileLayout) -> ImageModule:
    frames_text = first_value(elements.text(0x00280008))
    rescale = _macro(elements, groups, _PIXEL_VALUE_TRANSFORMATION, 0x00281053)
    voi = _macro(elements, groups, _FRAME_VOI_LUT, 0x00281050)
    windows = _windows(voi)
    return ImageModule(
        has_pixel_data=layout.pixel_data_offset is not None,
        rows=parse_int(elements.text(0x00280010)),
        columns=parse_int(elements.text(0x00280011)),
        samples_per_pixel=parse_int(elements.text(0x00280002)),
        bits_allocated=parse_int(elements.text(0x00280100)),
        bits_stored=parse_int(elements.text(0x00280101)),
        pixel_representation=parse_int(elements.text(0x00280103)),
        photometric_interpretation=_first(elements, 0x00280004),
        number_of_frames=parse_int(frames_text) if frames_text else 1,
        window_center=windows[0]["center"] if windows else None,
        window_width=windows[0]["width"] if windows else None,
        voi_lut_function=_first(voi, 0x00281056),
        windows=windows,
        rescale_slope=parse_float(rescale.text(0x00281053)),
        rescale_intercept=parse_float(rescale.text(0x00281052)),
        rescale_type=_first(rescale, 0x00281054),
        lossy_image_compression={"00": False, "01": True}.get(_first(elements, 0x00282110) or ""),
        lossy_image_compression_ratio=next(
            iter(_numbers(elements, 0x00282112, parse_float)[::-1]), None
        ),
        burned_in_annotation={"YES": True, "NO": False}.get(
            (_first(elements, 0x00280301) or "").upper()
        ),
        frame_time=parse_float(elements.text(0x00181063)),
        recommended_display_frame_rate=parse_float(elements.text(0x00082144)),
        has_complex_display=_has_complex_display(elements, layout),
        lacks_palette=_is_palette_color(elements)
        and not all(
            descriptor in elements and (data in elements or segmented in elements)
            for descriptor, data, segmented in _PALETTE
        ),
        lacks_number_of_frames=_FRAME_INCREMENT_POINTER in elements and not frames_text,
    )


def _is_palette_color(elements: Elements) -> bool:
    return (_first(elements, 0x00280004) or "").upper() == "PALETTE COLOR"


def _has_complex_display(elements: Elements, layout: FileLayout) -> bool:
    """Return whether rendering needs attributes that are not in the index."""
    stored = parse_int(elements.text(0x00280101))
    high_bit = parse_int(elements.text(_HIGH_BIT))
    return (
        _is_palette_color(elements)
        or parse_int(elements.text(_PLANAR_CONFIGURATION)) == 1
        or stored is None
        or (high_bit is not None and high_bit != stored - 1)
        or (_first(elements, _PRESENTATION_LUT_SHAPE) or "").upper() == "INVERSE"
        or any(tag in elements for tag in _LUT_SEQUENCES)
        or _uid(elements, 0x00080016) in SHOWN_AS_STORED
        # Whether samples of 8 bits stand in words depends on the VR of the pixel data.
        or not (layout.is_little_endian or parse_int(elements.text(0x00280100)) != _BYTE_BITS)
        or _has_display_groups(elements)
    )


def _has_display_groups(elements: Elements) -> bool:
    """Return whether functional groups have windows or rescaling of frames."""
    return any(
        tag in group
        for sequence in (_SHARED_GROUPS, _FRAME_GROUPS)
        for group in elements.items(sequence)
        for tag in (_PIXEL_VALUE_TRANSFORMATION, _FRAME_VOI_LUT)
    )


def _geometry(elements: Elements, groups: list[Elements]) -> GeometryModule:
    measures = _macro(elements, groups, _PIXEL_MEASURES, 0x00280030)
    position = _macro(elements, groups, _PLANE_POSITION, 0x00200032)
    orientation = _macro(elements, groups, _PLANE_ORIENTATION, 0x00200037)
    anatomy = _macro(elements, groups, _FRAME_ANATOMY, 0x00200062)
    return GeometryModule(
        pixel_spacing=_vector(measures, 0x00280030, 2),
        imager_pixel_spacing=_vector(elements, 0x00181164, 2),
        pixel_aspect_ratio=_vector(elements, 0x00280034, 2),
        image_position_patient=_vector(position, 0x00200032, 3),
        image_orientation_patient=_vector(orientation, 0x00200037, 6),
        frame_of_reference_uid=_uid(elements, 0x00200052) or None,
        slice_location=parse_float(elements.text(0x00201041)),
        slice_thickness=parse_float(measures.text(0x00180050)),
        spacing_between_slices=parse_float(measures.text(0x00180088)),
        laterality=_first(anatomy, 0x00200062)
        or _first(anatomy, 0x00209072)
        or _first(elements, 0x00200060),
        view_position=_first(elements, 0x00185101),
        patient_orientation=tuple(_texts(elements, 0x00200020)),
    )


def _acquisition(elements: Elements, groups: list[Elements]) -> AcquisitionModule:
    content = _macro(elements, groups, _FRAME_CONTENT, 0x00189074)
    combined = f"{first_value(elements.text(0x00080022))}{first_value(elements.text(0x00080032))}"
    return AcquisitionModule(
        acquisition_number=parse_int(elements.text(0x00200012)),
        acquisition_date_time=parse_datetime(elements.text(0x0008002A))
        or parse_datetime(combined)
        or parse_datetime(content.text(0x00189074)),
        echo_numbers=_numbers(elements, 0x00180086, parse_int),
        temporal_position_identifier=parse_int(elements.text(0x00200100)),
        image_type=tuple(_texts(elements, 0x00080008)),
    )


def _macro(elements: Elements, groups: list[Elements], sequence: int, tag: int) -> Elements:
    """Return the dataset with the attributes of a functional group macro (PS3.3 C.7.6.16).

    This is the top level if it has the tag; else the first item of the macro's sequence in the
    shared groups or in those of the first frame.
    """
    if tag in elements:
        return elements
    items = (group.first_item(sequence) for group in groups)
    return next((item for item in items if item is not None), elements)


def _windows(elements: Elements) -> tuple[FileWindow, ...]:
    centers = map(parse_float, split_values(_bounded(elements, 0x00281050))[:_MAX_VALUES])
    widths = map(parse_float, split_values(_bounded(elements, 0x00281051))[:_MAX_VALUES])
    explanations = split_values(_bounded(elements, 0x00281055))
    function = (_first(elements, 0x00281056) or "LINEAR").upper()
    if function not in {"LINEAR", "LINEAR_EXACT", "SIGMOID"}:
        function = "LINEAR"
    return tuple(
        FileWindow(
            center=center,
            width=width,
            explanation=clean_text(explanations[index]) if index < len(explanations) else None,
            function=function,
        )
        for index, (center, width) in enumerate(zip(centers, widths, strict=False))
        if center is not None and width is not None and width > 0
    )


Number = TypeVar("Number", int, float)


def _numbers(
    elements: Elements, tag: int, parse: Callable[[str | None], Number | None]
) -> tuple[Number, ...]:
    values = map(parse, split_values(_bounded(elements, tag))[:_MAX_VALUES])
    return tuple(value for value in values if value is not None)


def _vector(elements: Elements, tag: int, size: int) -> tuple[float, ...] | None:
    values = _numbers(elements, tag, parse_float)
    return values if len(values) == size else None


def _texts(elements: Elements, tag: int) -> list[str]:
    """Return the values without empty ones at the end: positions matter (PS3.3 C.7.6.1.1.2)."""
    values = [clean_text(value) or "" for value in split_values(_bounded(elements, tag))]
    while values and not values[-1]:
        values.pop()
    return values[:_MAX_VALUES]


def _bounded(elements: Elements, tag: int) -> str | None:
    text = elements.text(tag)
    return text and text[:_TEXT_CHARACTERS]


def _text(elements: Elements, tag: int) -> str | None:
    return clean_text(_bounded(elements, tag))


def _name(elements: Elements, tag: int) -> str | None:
    return clean_person_name(_bounded(elements, tag))


def _first(elements: Elements, tag: int) -> str | None:
    return clean_text(first_value(_bounded(elements, tag)))


def _uid(elements: Elements, tag: int) -> str:
    return (elements.text(tag) or "").strip(" \0")[:_UID_CHARACTERS]
