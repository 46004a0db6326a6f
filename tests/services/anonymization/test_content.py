"""Nothing that was planted is in an anonymised file, and what images need still is."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset
from pydicom.uid import generate_uid

from services.anonymization.content import AnonymizationRules, Identity, anonymized
from services.anonymization.profile import Treatment, may_be_kept, treatment_of
from services.anonymization.pseudonyms import Pseudonyms
from services.dicom.checking import check_file
from services.dicom.layout import WalkLimits
from services.dicom.new_header import rewritten
from services.errors import FileRejected
from tests.planted import PLANTED, found_in, planted_image, planted_report, written

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

_SMALL_BYTES = 64 * 1024

PSEUDONYMS = Pseudonyms(bytes(32))


def rules(**options: Any) -> AnonymizationRules:
    given = {"patient_id": "ANON-1", "patient_name": "Anon^One", **options}
    return AnonymizationRules(pseudonyms=PSEUDONYMS, **given)


def anonymized_bytes(content: bytes, **options: Any) -> bytes:
    with io.BytesIO(content) as source:
        made = rewritten(source, lambda ds: anonymized(ds, rules(**options)), WalkLimits())
        with made:
            return made.read()


def result_of(source: FileDataset, **options: Any) -> FileDataset:
    return dcmread(io.BytesIO(anonymized_bytes(written(source), **options)))


def test_at_least_forty_identifiers_are_planted() -> None:
    study = generate_uid()
    image = set(found_in(written(planted_image(study, generate_uid(), 1))))
    report = set(found_in(written(planted_report(study))))
    assert image | report == set(PLANTED)
    assert len(PLANTED) >= 40


@pytest.mark.parametrize(
    "make", [planted_report, lambda uid: planted_image(uid, generate_uid(), 1)]
)
def test_nothing_planted_is_left(make: Callable[[str], FileDataset]) -> None:
    source = make(generate_uid())
    content = anonymized_bytes(written(source))
    assert list(found_in(content)) == []
    for uid in (source.StudyInstanceUID, source.SeriesInstanceUID, source.SOPInstanceUID):
        assert uid.encode() not in content


def test_what_stays_on_request_is_clean_as_well() -> None:
    source = planted_image(generate_uid(), generate_uid(), 1)
    keep = frozenset({"StudyDescription", "StudyDate", "ProtocolName", "ManufacturerModelName"})
    result = result_of(source, keep=keep)
    # The description holds the patient's name; the others hold nobody's.
    assert "StudyDescription" not in result
    assert result.StudyDate == "20250611"
    assert result.ManufacturerModelName == "VendorModel-Z"
    assert "SeriesDescription" not in result
    codes = [item.CodeValue for item in result.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113109", "113105", "113106"]
    assert result.LongitudinalTemporalInformationModified == "UNMODIFIED"


def test_an_image_can_still_be_shown_and_measured() -> None:
    source = planted_image(generate_uid(), generate_uid(), 7)
    result = result_of(source)
    for keyword in (
        "Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient",
        "RescaleSlope", "RescaleIntercept", "RescaleType", "SliceThickness", "KVP", "Modality",
        "SOPClassUID", "ImageType", "InstanceNumber", "FilterType", "PixelData",
    ):  # fmt: skip
        assert result[keyword].value == source[keyword].value, keyword
    assert (result.PatientID, str(result.PatientName)) == ("ANON-1", "Anon^One")
    assert (result.PatientIdentityRemoved, len(result.DeidentificationMethod) <= 64) == (
        "YES",
        True,
    )
    assert result.LongitudinalTemporalInformationModified == "REMOVED"
    # Type 2 attributes are there without a value.
    for keyword in ("StudyDate", "PatientBirthDate", "AccessionNumber", "ReferringPhysicianName"):
        assert not result[keyword].value


def test_references_stay_right_and_no_uid_stays() -> None:
    source = planted_image(generate_uid(), generate_uid(), 1)
    result = result_of(source)
    (reference,) = result.ReferencedImageSequence
    assert reference.ReferencedSOPInstanceUID == result.SOPInstanceUID
    assert reference.ReferencedSOPClassUID == source.SOPClassUID
    assert result.file_meta.MediaStorageSOPInstanceUID == result.SOPInstanceUID
    assert result.SOPInstanceUID.startswith("2.25.")
    assert result.SOPInstanceUID.is_valid


def test_a_name_in_any_script_is_written_right() -> None:
    source = planted_image(generate_uid(), generate_uid(), 1)
    source.SpecificCharacterSet = "ISO_IR 100"
    source.PatientName = source.PatientBirthName = "Müller^Jörg"
    result = result_of(source, patient_name="山田^太郎", replace={"StudyDescription": "Größe"})
    assert str(result.PatientName) == "山田^太郎"
    assert result.StudyDescription == "Größe"


@pytest.mark.parametrize("content", [b"", b"no DICOM", b"\0" * 128 + b"DICM" + b"\xff" * 64])
def test_what_can_not_be_read_is_refused(content: bytes) -> None:
    with pytest.raises(FileRejected):
        anonymized_bytes(content)


@pytest.mark.no_cover
def test_every_small_file_of_pydicom_keeps_its_frames() -> None:
    checked = 0
    folder = Path(str(get_testdata_file("CT_small.dcm", download=False))).parent
    for path in sorted(folder.glob("*.dcm")):
        content = path.read_bytes()
        if len(content) > _SMALL_BYTES:
            continue
        try:
            before = check_file(io.BytesIO(content))
        except FileRejected:
            continue
        after = check_file(io.BytesIO(anonymized_bytes(content)))
        assert after.number_of_frames == before.number_of_frames, path
        assert after.header.patient.patient_id == "ANON-1"
        checked += 1
    assert checked > 20


def test_pseudonyms_are_the_same_for_the_same_and_need_the_key() -> None:
    assert PSEUDONYMS.patient_id("A") == PSEUDONYMS.patient_id("A") != PSEUDONYMS.patient_id("B")
    other = Pseudonyms(b"1" * 32)
    assert other.patient_id("A") != PSEUDONYMS.patient_id("A")
    assert other.uid("1.2") != PSEUDONYMS.uid("1.2")
    assert PSEUDONYMS.for_output({"keep": ["StudyDate"]}).uid("1.2") != PSEUDONYMS.uid("1.2")
    assert len(PSEUDONYMS.uid("1.2")) <= 64


@pytest.mark.parametrize(
    ("tag", "vr", "expected"),
    [
        (0x00100010, "PN", Treatment.EMPTY),
        (0x00290010, "LO", Treatment.REMOVE),
        (0x00200013, "IS", Treatment.KEEP),
        (0x00080018, "UI", Treatment.MAP_UID),
        (0x00080016, "UI", Treatment.KEEP),
        (0x00080104, "LO", Treatment.KEEP),
        (0x00084ABC, "LO", Treatment.REMOVE),
        (0x60003000, "OW", Treatment.REMOVE),
        (0x0040A730, "SQ", Treatment.DESCEND),
        (0x00400275, "SQ", Treatment.REMOVE),
        (0x00081140, "SQ", Treatment.DESCEND),
        # A text in the place of a number.
        (0x00280010, "LT", Treatment.REMOVE),
    ],
)
def test_each_attribute_has_its_treatment(tag: int, vr: str, expected: Treatment) -> None:
    assert treatment_of(tag, vr) is expected


@pytest.mark.parametrize(
    ("keyword", "expected"),
    [
        ("StudyDate", True),
        ("PatientAge", True),
        ("PatientSex", True),
        ("StudyDescription", True),
        ("Manufacturer", True),
        ("PatientName", False),
        ("ReferringPhysicianName", False),
        ("PatientID", False),
        ("AccessionNumber", False),
        ("PatientBirthDate", False),
        ("StudyInstanceUID", False),
        ("RequestAttributesSequence", False),
        ("PatientComments", False),
        ("NoSuchKeyword", False),
    ],
)
def test_names_identifiers_and_uids_never_stay(keyword: str, expected: bool) -> None:
    assert may_be_kept(keyword) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Seen by Plantagenet", True),
        ("XPLANTAGENETX", True),
        ("Li has come", True),
        ("lipid", False),
        ("金雀", True),
        ("nothing", False),
    ],
)
def test_short_words_of_a_name_are_found_alone_and_long_ones_anywhere(
    text: str, expected: bool
) -> None:
    assert Identity(["Plantagenet", "Li", "金雀"]).is_in(text) is expected


def test_no_name_of_a_patient_takes_away_what_an_image_needs() -> None:
    ct = dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    ct.PatientName = "Chrome^Axial^Primary^Hfs^Iso^Original"
    ct.PatientID, ct.BodyPartExamined = "MONOCHROME2", "CHROME"
    result = result_of(ct)
    for keyword in ("PhotometricInterpretation", "ImageType", "PatientPosition"):
        assert (
            result[keyword].value
            == dcmread(str(get_testdata_file("CT_small.dcm", download=False)))[keyword].value
        )
    assert result.SpecificCharacterSet == "ISO_IR 100"
    assert "BodyPartExamined" not in result


def test_a_file_without_words_hides_nothing() -> None:
    assert not Identity([]).is_in("anything")
    ct = dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    assert result_of(ct).ConvolutionKernel == ct.ConvolutionKernel
