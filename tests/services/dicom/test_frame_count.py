from dataclasses import replace

import pytest
from pydicom.data import get_testdata_file

from services.dicom.checking import CheckedFile, check_file
from services.dicom.frame_count import display_fault, renderable_frames, sop_class_name
from services.dicom.header import (
    ImageModule,
    InstanceHeader,
    PatientModule,
    SeriesModule,
    StudyModule,
)
from services.dicom.layout import FileLayout

_NATIVE = "1.2.840.10008.1.2.1"
_JPEG_2000 = "1.2.840.10008.1.2.4.90"
_IMAGE = ImageModule(
    has_pixel_data=True,
    rows=4,
    columns=4,
    samples_per_pixel=1,
    bits_allocated=16,
    bits_stored=12,
    photometric_interpretation="MONOCHROME2",
    number_of_frames=3,
)


def _header(image: ImageModule = _IMAGE, **changes: object) -> InstanceHeader:
    header = InstanceHeader(
        patient=PatientModule(patient_id="1"),
        study=StudyModule(study_instance_uid="1"),
        series=SeriesModule(series_instance_uid="1"),
        image=image,
        sop_instance_uid="1",
        transfer_syntax_uid=_NATIVE,
        pixel_data_bytes=96,
    )
    return replace(header, **changes)  # type: ignore[arg-type]  # any field may change


def _checked(name: str) -> CheckedFile:
    path = get_testdata_file(name)
    assert isinstance(path, str)
    with open(path, "rb") as file:  # noqa: PTH123 - pydicom answers with a string
        return check_file(file)


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("CT_small.dcm", 1),
        ("rtdose.dcm", 15),
        ("rtdose_1frame.dcm", 1),
        ("rtdose_rle.dcm", 15),
        ("emri_small_jpeg_2k_lossless.dcm", 10),
        ("liver.dcm", 3),
        ("SC_ybr_full_422_uncompressed.dcm", 1),
        ("color3d_jpeg_baseline.dcm", 120),
        ("image_dfl.dcm", 1),
    ],
)
def test_frames_of_files(name: str, frames: int) -> None:
    checked = _checked(name)
    assert (checked.number_of_frames, checked.not_renderable_reason) == (frames, None)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("test-SR.dcm", "This object is a structured report; it has no image."),
        ("rtplan.dcm", "This object is a radiotherapy plan; it has no image."),
        ("rtstruct.dcm", "This object is a radiotherapy structure set; it has no image."),
        ("waveform_ecg.dcm", "This object is a waveform; it has no image."),
    ],
)
def test_files_without_image_say_why(name: str, reason: str) -> None:
    checked = _checked(name)
    assert (checked.number_of_frames, checked.not_renderable_reason) == (0, reason)


@pytest.mark.parametrize(
    ("header", "frames"),
    [
        (_header(), 3),
        (_header(pixel_data_bytes=95), 2),
        (_header(pixel_data_bytes=960), 3),
        (_header(pixel_data_bytes=None), 3),
        (_header(replace(_IMAGE, number_of_frames=None)), 1),
        (_header(replace(_IMAGE, number_of_frames=-7)), 1),
        (_header(replace(_IMAGE, number_of_frames=10**9)), 3),
        (_header(replace(_IMAGE, bits_allocated=1, bits_stored=1), pixel_data_bytes=5), 2),
        (
            _header(
                replace(
                    _IMAGE,
                    samples_per_pixel=3,
                    bits_allocated=8,
                    bits_stored=8,
                    photometric_interpretation="RGB",
                )
            ),
            2,
        ),
        (
            _header(
                replace(
                    _IMAGE,
                    samples_per_pixel=3,
                    bits_allocated=8,
                    bits_stored=8,
                    photometric_interpretation="YBR_FULL_422",
                )
            ),
            3,
        ),
        (_header(frame_fragments=2, transfer_syntax_uid=_JPEG_2000), 2),
        (_header(transfer_syntax_uid=_JPEG_2000), 3),
    ],
)
def test_the_smaller_of_declared_and_provable_counts(header: InstanceHeader, frames: int) -> None:
    assert renderable_frames(header) == (frames, None)


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        (_header(replace(_IMAGE, has_pixel_data=False)), "Its pixel data is missing."),
        (_header(replace(_IMAGE, rows=None)), "Its Rows and Columns are missing."),
        (_header(replace(_IMAGE, columns=0)), "Its Rows and Columns are missing."),
        (_header(replace(_IMAGE, columns=-4)), "Its Rows and Columns make no sense."),
        (
            _header(replace(_IMAGE, rows=65535, columns=65535)),
            "Its frames of 65535 x 65535 pixels are larger than allowed.",
        ),
        (
            _header(replace(_IMAGE, samples_per_pixel=7)),
            "Its SamplesPerPixel is 7, which contradicts its PhotometricInterpretation.",
        ),
        (
            _header(replace(_IMAGE, bits_allocated=None)),
            "Its BitsAllocated is missing.",
        ),
        (
            _header(replace(_IMAGE, bits_stored=17)),
            "Its BitsStored does not fit its BitsAllocated.",
        ),
        (_header(pixel_data_bytes=31), "Its pixel data is shorter than one frame."),
        (
            _header(frame_fragments=0, transfer_syntax_uid=_JPEG_2000),
            "Its pixel data is shorter than one frame.",
        ),
        (
            _header(replace(_IMAGE, lacks_number_of_frames=True), transfer_syntax_uid=_JPEG_2000),
            "It has a FrameIncrementPointer, but its NumberOfFrames is missing.",
        ),
    ],
)
def test_faults_are_told_in_a_sentence(header: InstanceHeader, fault: str) -> None:
    assert display_fault(header) == fault
    assert renderable_frames(header) == (0, fault)


def test_sop_classes_have_names() -> None:
    assert sop_class_name("1.2.840.10008.5.1.4.1.1.2") == "CT Image Storage"
    assert sop_class_name("1.2.3") is None
    assert sop_class_name("nonsense") is None
    assert sop_class_name(None) is None


def test_frames_of_less_than_a_bit_are_no_fault() -> None:
    image = replace(
        _IMAGE,
        rows=1,
        columns=1,
        bits_allocated=1,
        bits_stored=1,
    )
    assert renderable_frames(_header(image)) == (3, None)


def test_frames_of_a_beginning_without_offset_table_are_those_that_are_declared() -> None:
    header = _header(transfer_syntax_uid=_JPEG_2000, pixel_data_bytes=None, frame_fragments=None)
    layout = FileLayout(
        transfer_syntax_uid=_JPEG_2000,
        is_implicit_vr=False,
        is_little_endian=True,
        is_deflated=False,
        has_preamble=True,
        meta_offset=132,
        dataset_offset=300,
        end_offset=2_000_000,
        file_size=2_000_000,
        pixel_data_offset=1_000,
        # Less than one frame has without compression.
        pixel_data_length=30,
        pixel_data_is_encapsulated=True,
        is_whole=False,
    )
    assert renderable_frames(header, layout) == (3, None)
