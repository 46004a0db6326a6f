import io
from pathlib import Path

import pydicom
import pydicom.data
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from services.dicom.checking import check_file
from services.dicom.header import AcquisitionModule, GeometryModule, ImageModule
from services.dicom.values import is_valid_uid
from services.errors import FileRejected

_CHARACTER_SET_FILES = Path(pydicom.data.__file__).parent / "charset_files"


@pytest.mark.parametrize(
    ("name", "patient_name"),
    [
        ("chrArab.dcm", "قباني^لنزار"),
        ("chrFren.dcm", "Buc^Jérôme"),
        ("chrFrenMulti.dcm", "Buc^Jérôme"),
        ("chrGerm.dcm", "Äneas^Rüdiger"),
        ("chrGreek.dcm", "Διονυσιος"),
        ("chrH31.dcm", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("chrH32.dcm", "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
        ("chrHbrw.dcm", "שרון^דבורה"),
        ("chrI2.dcm", "Hong^Gildong=洪^吉洞=홍^길동"),
        ("chrKoreanMulti.dcm", "김희중"),
        ("chrRuss.dcm", "Люкceмбypг"),  # noqa: RUF001 - a name in Cyrillic
        ("chrX1.dcm", "Wang^XiaoDong=王^小東"),
        ("chrX2.dcm", "Wang^XiaoDong=王^小东"),
    ],
)
def test_names_in_any_character_set(name: str, patient_name: str) -> None:
    with (_CHARACTER_SET_FILES / name).open("rb") as file:
        assert check_file(file).header.patient.patient_name == patient_name


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom warns while it reads them
@pytest.mark.parametrize(
    ("character_set", "expected"),
    [(b"ISO_IR 999", "J\u00e9r"), (b"ISO-IR 100", "J\u00e9r"), (b"nonsense  ", "J\u00e9r")],
)
def test_unknown_character_sets_are_read_as_well_as_can_be(
    ct_bytes: bytes, character_set: bytes, expected: str
) -> None:
    content = ct_bytes.replace(b"ISO_IR 100", character_set, 1)
    content = content.replace(b"PN\x16\x00CompressedSamples^CT1 ", b"PN\x04\x00J\xe9r ", 1)
    assert check_file(io.BytesIO(content)).header.patient.patient_name == expected


def test_endless_texts_are_cut_and_endless_uids_stay_invalid(ct_bytes: bytes) -> None:
    content = ct_bytes
    for tag, vr, letter in (
        (b"\x10\0\x10\0", b"PN", b"N"),
        (b"\x08\0\x70\0", b"LO", b"M"),
        (b"\x08\0\x16\0", b"UI", b"1"),
    ):
        place = content.index(tag + vr, 300) + 6
        length = int.from_bytes(content[place : place + 2], "little")
        value = (60_000).to_bytes(2, "little") + letter * 60_000
        content = content[:place] + value + content[place + 2 + length :]
    header = check_file(io.BytesIO(content)).header
    assert header.patient.patient_name == "N" * 1_024
    assert header.series.manufacturer == "M" * 1_024
    assert header.sop_class_uid == "1" * 65
    assert not is_valid_uid(header.sop_class_uid)


def _written(dataset: Dataset) -> io.BytesIO:
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset)
    return file


def test_all_that_viewers_need_is_read() -> None:
    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    for keyword, value in {
        "ImageType": ["ORIGINAL", "PRIMARY", "", "M"],
        "PixelSpacing": [0.5, 0.25],
        "ImagerPixelSpacing": [0.75, 1.5],
        "PixelAspectRatio": [2, 1],
        "ImagePositionPatient": [-1.5, 2, 30.25],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "FrameOfReferenceUID": "1.2.3.4",
        "SliceLocation": -7.5,
        "SliceThickness": 5,
        "SpacingBetweenSlices": 6,
        "ImageLaterality": "L",
        "ViewPosition": "MLO",
        "PatientOrientation": ["L", "P"],
        "AcquisitionNumber": 3,
        "AcquisitionDate": "20240229",
        "AcquisitionTime": "131415.25",
        "EchoNumbers": [1, 2],
        "TemporalPositionIdentifier": 4,
        "WindowCenter": [40, -600],
        "WindowWidth": [400, 1500],
        "WindowCenterWidthExplanation": ["BRAIN", "LUNG"],
        "VOILUTFunction": "SIGMOID",
        "RescaleSlope": 2,
        "RescaleIntercept": -1024,
        "RescaleType": "HU",
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": [2, 10.5],
        "BurnedInAnnotation": "NO",
        "FrameTime": 33.3,
        "RecommendedDisplayFrameRate": 30,
        "SeriesDate": "20240301",
        "SeriesTime": "0102",
        "PerformingPhysicianName": "Smith^Anna",
        "StationName": "CT01",
        "PatientAge": "034Y",
        "IssuerOfPatientID": "HOSPITAL",
    }.items():
        setattr(dataset, keyword, value)
    header = check_file(_written(dataset)).header
    assert header.geometry == GeometryModule(
        pixel_spacing=(0.5, 0.25),
        imager_pixel_spacing=(0.75, 1.5),
        pixel_aspect_ratio=(2, 1),
        image_position_patient=(-1.5, 2, 30.25),
        image_orientation_patient=(1, 0, 0, 0, 1, 0),
        frame_of_reference_uid="1.2.3.4",
        slice_location=-7.5,
        slice_thickness=5,
        spacing_between_slices=6,
        laterality="L",
        view_position="MLO",
        patient_orientation=("L", "P"),
    )
    assert header.acquisition == AcquisitionModule(
        acquisition_number=3,
        acquisition_date_time="2024-02-29T13:14:15.25",
        echo_numbers=(1, 2),
        temporal_position_identifier=4,
        image_type=("ORIGINAL", "PRIMARY", "", "M"),
    )
    image = header.image
    assert image.windows == (
        {"center": 40, "width": 400, "explanation": "BRAIN", "function": "SIGMOID"},
        {"center": -600, "width": 1500, "explanation": "LUNG", "function": "SIGMOID"},
    )
    assert (image.rescale_slope, image.rescale_intercept, image.rescale_type) == (2, -1024, "HU")
    assert (image.lossy_image_compression, image.lossy_image_compression_ratio) == (True, 10.5)
    assert (image.burned_in_annotation, image.frame_time) == (False, 33.3)
    assert image.recommended_display_frame_rate == 30
    series = header.series
    assert (series.series_date, series.series_time) == ("2024-03-01", "01:02:00")
    assert (series.performing_physician_name, series.station_name) == ("Smith^Anna", "CT01")
    assert header.study.patient_age == "034Y"
    assert header.patient.issuer_of_patient_id == "HOSPITAL"


def test_what_a_file_does_not_say_is_absent() -> None:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.11", "1.2.3"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2", "1.2.4"
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = check_file(_written(dataset)).header
    assert (header.geometry, header.acquisition) == (GeometryModule(), AcquisitionModule())
    assert header.image == ImageModule(has_pixel_data=False, has_complex_display=True)


def test_functional_groups_speak_for_the_first_frame() -> None:
    path = str(get_testdata_file("eCT_Supplemental.dcm", download=False))
    header = check_file(io.BytesIO(Path(path).read_bytes())).header
    assert header.geometry == GeometryModule(
        pixel_spacing=(0.388672, 0.388672),
        image_position_patient=(99.5, -301.5, -159.0),
        image_orientation_patient=(-1, 0, 0, 0, 1, 0),
        frame_of_reference_uid="1.3.6.1.4.1.5962.1.4.10.1.1166562673.14401",
        slice_thickness=10,
        laterality="U",
    )
    assert header.image.windows == (
        {"center": 49, "width": 102, "explanation": None, "function": "LINEAR"},
    )
    assert (header.image.window_center, header.image.window_width) == (49, 102)


def test_padding_of_a_patient_id_is_no_part_of_the_identity() -> None:
    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    dataset.PatientID = "\u00a0OVI "
    header = check_file(_written(dataset)).header
    # Orthanc hashes the value without spaces only.
    assert (header.patient.patient_id, header.identifying_patient_id) == ("OVI", "\u00a0OVI")


def test_of_a_beginning_the_same_is_read(ct_bytes: bytes) -> None:
    whole = check_file(io.BytesIO(ct_bytes))
    beginning = check_file(io.BytesIO(ct_bytes[:8_000]), file_size=len(ct_bytes))
    assert beginning.header == whole.header
    assert beginning.number_of_frames == whole.number_of_frames == 1
    with pytest.raises(FileRejected) as caught:
        check_file(io.BytesIO(ct_bytes[:8_000]), file_size=20_000)
    assert caught.value.code == "TRUNCATED"
