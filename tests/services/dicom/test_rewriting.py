import hashlib
import io
import struct
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from services.dicom.checking import check_file
from services.dicom.json_model import header_json
from services.dicom.parser import walk
from services.dicom.patient_override import PatientOverride, overridden, read_modified_at
from services.dicom.rewriting import PreparedFile, prepare
from services.errors import FileRejected, InvalidInput
from services.files import FileRange

MODIFIED_AT = datetime(2026, 11, 27, 16, 30, 15, 250_000, UTC)
ORIGINAL_ATTRIBUTES = "04000561"
OTHER_IDENTITY = {
    "00081120", "00100021", "00100022", "00100024", "00100026", "00100027", "00100050", "00101000",
    "00101001", "00101002", "00101005", "00101040", "00101050", "00101060", "00101090", "00101100",
    "00102154", "00102155", "00102297", "00104000",
}  # fmt: skip


def _bytes(prepared: PreparedFile) -> bytes:
    content = b"".join(prepared.chunks())
    assert len(content) == prepared.length
    assert prepared.md5() == hashlib.md5(content, usedforsecurity=False).hexdigest()
    prepared.close()
    return content


def _rewritten(content: bytes, **overrides: str) -> bytes:
    file = io.BytesIO(content)
    override = PatientOverride(overrides.get("patient_id"), overrides.get("patient_name"))
    return _bytes(prepare(file, walk(file), override=override, modified_at=MODIFIED_AT))


def _pixel_data(content: bytes) -> bytes:
    layout = walk(io.BytesIO(content))
    return content[layout.pixel_data_offset :] if layout.pixel_data_offset else b""


def test_without_overrides_only_the_preamble_changes(good_files: list[Path]) -> None:
    for path in good_files:
        content = path.read_bytes()
        layout = walk(io.BytesIO(content))
        start = 128 if layout.has_preamble else 0
        assert _rewritten(content) == bytes(start) + content[start:], path.name


@pytest.mark.no_cover
def test_ascii_overrides_change_only_the_patient_in_every_file(good_files: list[Path]) -> None:
    for path in good_files:
        content = path.read_bytes()
        rewritten = _rewritten(content, patient_id="PAT001", patient_name="Doe^Jane")
        before, after = (header_json(io.BytesIO(c)) for c in (content, rewritten))
        [*earlier, change] = after.pop(ORIGINAL_ATTRIBUTES)["Value"]
        assert len(earlier) == len(before.pop(ORIGINAL_ATTRIBUTES, {}).get("Value", []))
        removed = before.keys() & OTHER_IDENTITY
        assert change == _change({"00100010", "00100020"} | removed), path.name
        expected = {tag: element for tag, element in before.items() if tag not in removed}
        expected["00100010"] = {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane"}]}
        expected["00100020"] = {"vr": "LO", "Value": ["PAT001"]}
        assert _without_nested_patients(after) == _without_nested_patients(expected), path.name
        if not walk(io.BytesIO(content)).is_deflated:
            assert _pixel_data(rewritten) == _pixel_data(content), path.name


def _change(tags: set[str]) -> dict[str, object]:
    """The item of OriginalAttributesSequence that names some tags of the top level."""
    emptied = {tag: {"vr": dictionary_VR(int(tag, 16))} for tag in tags}
    return {
        "04000550": {"vr": "SQ", "Value": [emptied]},
        "04000562": {"vr": "DT", "Value": ["20261127163015.250000+0000"]},
        "04000563": {"vr": "LO", "Value": ["orthanc-graphql"]},
        "04000564": {"vr": "LO"},
        "04000565": {"vr": "CS", "Value": ["COERCE"]},
    }


def _without_nested_patients(model: dict[str, Any]) -> dict[str, Any]:
    return {
        tag: _without_patient(element) if element["vr"] == "SQ" else element
        for tag, element in model.items()
    }


def _without_patient(sequence: dict[str, Any]) -> dict[str, Any]:
    items = [
        {
            tag: element
            for tag, element in _without_nested_patients(item).items()
            if tag not in OTHER_IDENTITY | {"00100010", "00100020"}
        }
        for item in sequence.get("Value", ())
    ]
    return {**sequence, "Value": items}


def _of_another_patient() -> Dataset:
    """A file that names one patient in every way: at the top, in items, and in their items."""
    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    dataset.PatientID, dataset.PatientName = "OLD-ID", "OLD^NAME"
    dataset.IssuerOfPatientID = "OLD-ISSUER"
    dataset.OtherPatientIDs = ["OLD-1", "OLD-2"]
    dataset.OtherPatientNames = ["OLD^OTHER"]
    dataset.PatientBirthName = "OLD^BIRTH"
    dataset.PatientMotherBirthName = "OLD^MOTHER"
    dataset.MedicalRecordLocator = "OLD-RECORD"
    dataset.PatientAddress = "OLD STREET"
    dataset.PatientTelephoneNumbers = "OLD-12345"
    dataset.PatientComments = "OLD COMMENT"
    other = Dataset()
    other.PatientID, other.IssuerOfPatientID = "OLD-3", "OLD-ISSUER"
    qualifiers = Dataset()
    qualifiers.UniversalEntityID = "OLD-ENTITY"
    dataset.OtherPatientIDsSequence = [other]
    dataset.IssuerOfPatientIDQualifiersSequence = [qualifiers]
    inner = Dataset()
    inner.PatientName, inner.PatientID, inner.StudyID = "OLD^NAME", "OLD-ID", "kept"
    inner.OtherPatientIDs = "OLD-4"
    outer = Dataset()
    outer.ReferencedRequestSequence = [inner]
    outer.RequestedProcedureDescription = "kept too"
    dataset.RequestAttributesSequence = [outer]
    former = Dataset()
    former.PatientName, former.PatientID, former.StudyID = "OLD^EARLIER", "OLD-0", "former"
    change = Dataset()
    change.ModifiedAttributesSequence = [former]
    change.ModifyingSystem = "SCANNER"
    dataset.OriginalAttributesSequence = [change]
    return dataset


@pytest.mark.parametrize("new_name", ["New^Jane", "Yamada^Tarou=山田^太郎"])
@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    ],
)
def test_nothing_of_the_other_patient_stays(syntax: UID, new_name: str) -> None:
    dataset = _of_another_patient()
    dataset.file_meta.TransferSyntaxUID = syntax
    file = io.BytesIO()
    pydicom.dcmwrite(
        file, dataset, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian
    )
    rewritten = _rewritten(file.getvalue(), patient_id="NEW-1", patient_name=new_name)
    after = pydicom.dcmread(io.BytesIO(rewritten))
    assert "OLD" not in str(after)
    plain = io.BytesIO()
    after.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    pydicom.dcmwrite(plain, after, implicit_vr=False, little_endian=True)
    assert b"OLD" not in plain.getvalue()
    assert (after.PatientID, after.PatientName) == ("NEW-1", new_name)
    [outer] = after.RequestAttributesSequence
    [inner] = outer.ReferencedRequestSequence
    assert outer.RequestedProcedureDescription == "kept too"
    assert (inner.PatientID, inner.PatientName) == ("NEW-1", new_name)
    assert inner.StudyID == "kept"
    earlier, change = after.OriginalAttributesSequence
    [former] = earlier.ModifiedAttributesSequence
    assert (former.PatientName, former.PatientID, former.StudyID) == ("", "", "former")
    assert earlier.ModifyingSystem == "SCANNER"
    [emptied] = change.ModifiedAttributesSequence
    assert [element.keyword for element in emptied] == [
        "PatientName",
        "PatientID",
        "IssuerOfPatientID",
        "IssuerOfPatientIDQualifiersSequence",
        "OtherPatientIDs",
        "OtherPatientNames",
        "OtherPatientIDsSequence",
        "PatientBirthName",
        "PatientAddress",
        "PatientMotherBirthName",
        "MedicalRecordLocator",
        "PatientTelephoneNumbers",
        "PatientComments",
    ]
    assert all(element.is_empty for element in emptied)
    assert change.ReasonForTheAttributeModification == "COERCE"
    assert read_modified_at(io.BytesIO(rewritten)) == MODIFIED_AT


def test_another_name_alone_keeps_the_id_everywhere() -> None:
    file = io.BytesIO()
    pydicom.dcmwrite(file, _of_another_patient())
    after = pydicom.dcmread(io.BytesIO(_rewritten(file.getvalue(), patient_name="New^Jane")))
    [inner] = after.RequestAttributesSequence[0].ReferencedRequestSequence
    assert (after.PatientID, inner.PatientID) == ("OLD-ID", "OLD-ID")
    assert (after.PatientName, inner.PatientName) == ("New^Jane", "New^Jane")
    assert "OtherPatientIDs" not in after


def test_group_lengths_of_changed_groups_are_left_out(ct_bytes: bytes) -> None:
    length = b"\x10\0\0\0UL\x04\0\x99\0\0\0"
    place = ct_bytes.index(b"\x10\0\x10\0PN")
    rewritten = _rewritten(ct_bytes[:place] + length + ct_bytes[place:], patient_id="PAT001")
    assert 0x00100000 not in pydicom.dcmread(io.BytesIO(rewritten))


def test_an_identity_in_a_sequence_of_unknown_vr_is_replaced(ct_bytes: bytes) -> None:
    patient = struct.pack("<HHI", 0x0010, 0x0020, 6) + b"OLD-ID"
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(patient)) + patient
    sequence = b"\x40\0\x75\x02UN\0\0" + struct.pack("<I", len(item)) + item
    rewritten = _rewritten(ct_bytes[:6288] + sequence + ct_bytes[6288:], patient_id="NEW-01")
    assert b"OLD-ID" not in rewritten
    after = pydicom.dcmread(io.BytesIO(rewritten))
    assert after.RequestAttributesSequence[0].PatientID == "NEW-01"


@pytest.mark.no_cover
def test_other_alphabets_turn_every_header_into_utf_8(good_files: list[Path]) -> None:
    for path in good_files:
        content = path.read_bytes()
        rewritten = _rewritten(content, patient_id="č-1", patient_name="Yamada^Tarou=山田^太郎")
        before, after = (check_file(io.BytesIO(c)).header for c in (content, rewritten))
        assert after.patient.patient_name == "Yamada^Tarou=山田^太郎", path.name
        assert after.patient.patient_id == "č-1", path.name
        assert after.study == before.study, path.name
        assert after.series == before.series, path.name
        assert after.image == before.image, path.name
        if not walk(io.BytesIO(content)).is_deflated:
            assert _pixel_data(rewritten) == _pixel_data(content), path.name


@pytest.mark.no_cover
def test_pydicom_reads_an_equal_dataset_but_for_the_overrides(good_files: list[Path]) -> None:
    for path in good_files:
        content = path.read_bytes()
        rewritten = _rewritten(content, patient_id="PAT001")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom warns of what these files are here for
            before, after = (
                pydicom.dcmread(io.BytesIO(c), force=True) for c in (content, rewritten)
            )
        assert after.PatientID == "PAT001"
        assert _raw_values(before) == _raw_values(after), path.name


def _raw_values(dataset: Dataset) -> dict[int, object]:
    changed = {0x00100020, 0x04000561, *(int(tag, 16) for tag in OTHER_IDENTITY)}
    elements = {
        int(tag): dataset.get_item(tag)
        for tag in dataset.keys()  # noqa: SIM118 - iterating converts values
        if tag not in changed and tag.element != 0
    }
    return {
        tag: len(element.value or ()) if element.VR == "SQ" else element.value
        for tag, element in elements.items()
    }


_NAMES = st.text(
    st.characters(exclude_categories=("C", "Z"), exclude_characters="\\=^"), max_size=60
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(patient_id=_NAMES, patient_name=_NAMES)
def test_any_valid_value_comes_back(ct_bytes: bytes, patient_id: str, patient_name: str) -> None:
    rewritten = _rewritten(ct_bytes, patient_id=patient_id, patient_name=patient_name)
    patient = check_file(io.BytesIO(rewritten)).header.patient
    assert (patient.patient_id, patient.patient_name) == (patient_id, patient_name or None)


@pytest.mark.parametrize(
    ("patient_id", "patient_name"),
    [
        ("1" * 65, None),
        ("a\\b", None),
        ("a\nb", None),
        (None, "x" * 65),
        (None, "a=b=c=d"),
        (None, "a^b^c^d^e^f"),
        (None, "a\0b"),
    ],
)
def test_invalid_overrides_are_refused(
    ct_bytes: bytes, patient_id: str | None, patient_name: str | None
) -> None:
    file = io.BytesIO(ct_bytes)
    with pytest.raises(InvalidInput):
        prepare(file, walk(file), override=PatientOverride(patient_id, patient_name))


@pytest.mark.parametrize(
    ("magic", "keep", "stays"),
    [(b"II*\0", True, True), (b"II*\0", False, False), (b"MZ\0\0", True, False)],
)
def test_only_a_tiff_preamble_stays_and_only_by_setting(
    ct_bytes: bytes, magic: bytes, keep: bool, stays: bool
) -> None:
    file = io.BytesIO(magic + ct_bytes[4:])
    content = _bytes(prepare(file, walk(file), keep_tiff_preamble=keep))
    assert (content[:4] == magic) is stays
    assert content[128:] == ct_bytes[128:]


def test_zeros_behind_the_last_element_are_left_out(ct_bytes: bytes) -> None:
    assert _rewritten(ct_bytes + bytes(1000)) == bytes(128) + ct_bytes[128:]


def test_chunks_are_at_most_one_mebibyte(ct_bytes: bytes) -> None:
    end = walk(io.BytesIO(ct_bytes)).end_offset
    element = b"\xe1\x7f\x10\x10OB\0\0" + (3 * 1024 * 1024).to_bytes(4, "little")
    file = io.BytesIO(ct_bytes[:end] + element + bytes(3 * 1024 * 1024))
    prepared = prepare(file, walk(file), override=PatientOverride("1"))
    assert max(map(len, prepared.chunks())) == 1024 * 1024


def test_what_stands_in_a_file_is_told_by_its_place(ct_bytes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "ct.dcm"
    path.write_bytes(ct_bytes)
    with path.open("rb") as file:
        prepared = prepare(file, walk(file), override=PatientOverride("1", "Doe^Jane"))
        pieces = list(prepared.pieces())
        assert [type(piece) for piece in pieces].count(FileRange) >= 2
        told = b"".join(
            piece if isinstance(piece, bytes) else ct_bytes[piece.begin : piece.end]
            for piece in pieces
        )
        assert told == b"".join(prepared.chunks())


def test_a_file_that_shrinks_while_it_is_read_is_refused(ct_bytes: bytes) -> None:
    file = io.BytesIO(ct_bytes)
    prepared = prepare(file, walk(file))
    file.truncate(1_000)
    with pytest.raises(FileRejected) as caught:
        prepared.md5()
    assert caught.value.code == "TRUNCATED"


class _CountingFile(io.BytesIO):
    bytes_read = 0

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        self.bytes_read += len(content)
        return content


def test_another_patient_costs_no_reading_of_a_large_document(ct_bytes: bytes) -> None:
    document = b"\x42\0\x11\0OB\0\0" + struct.pack("<I", 8_000_000) + bytes(8_000_000)
    file = _CountingFile(ct_bytes[:6288] + document)
    layout = walk(file)
    file.bytes_read = 0
    prepare(file, layout, override=PatientOverride("PAT001"))
    assert file.bytes_read < 1_000_000


def test_items_are_written_again_in_utf_8(ct_bytes: bytes) -> None:
    item = b"\xfe\xff\0\xe0" + struct.pack("<I", 10) + b"\x08\0\x60\0CS\x02\0CT"
    sequence = b"\x40\0\x75\x02SQ\0\0" + struct.pack("<I", len(item)) + item
    content = ct_bytes[:6288] + sequence + ct_bytes[6288:]
    assert item in _rewritten(content, patient_id="č")


def test_an_override_that_says_what_the_file_says_changes_nothing(ct_bytes: bytes) -> None:
    header = check_file(io.BytesIO(ct_bytes)).header
    assert not PatientOverride(" 1CT1 ", "CompressedSamples^CT1").changes(header)
    assert PatientOverride("1CT2").changes(header)
    assert overridden(header, PatientOverride("1CT2")).patient.patient_id == "1CT2"
