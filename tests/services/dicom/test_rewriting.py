import hashlib
import io
import struct
import warnings
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from services.dicom.checking import check_file
from services.dicom.json_model import header_json
from services.dicom.parser import walk
from services.dicom.reading import DatasetAttributes
from services.dicom.rewriting import PreparedFile, prepare
from services.errors import FileRejected, InvalidInput
from services.files import FileRange


def _bytes(prepared: PreparedFile) -> bytes:
    content = b"".join(prepared.chunks())
    assert len(content) == prepared.length
    assert prepared.md5() == hashlib.md5(content, usedforsecurity=False).hexdigest()
    prepared.close()
    return content


def _rewritten(content: bytes, **overrides: str) -> bytes:
    file = io.BytesIO(content)
    patient_id, patient_name = overrides.get("patient_id"), overrides.get("patient_name")
    return _bytes(prepare(file, walk(file), patient_id=patient_id, patient_name=patient_name))


def _pixel_data(content: bytes) -> bytes:
    layout = walk(io.BytesIO(content))
    return content[layout.pixel_data_offset :] if layout.pixel_data_offset else b""


def test_without_overrides_only_the_preamble_changes(good_files: list[Path]) -> None:
    for path in good_files:
        content = path.read_bytes()
        layout = walk(io.BytesIO(content))
        start = 128 if layout.has_preamble else 0
        assert _rewritten(content) == bytes(start) + content[start:], path.name


def test_ascii_overrides_change_only_the_patient_in_every_file(good_files: list[Path]) -> None:
    for path in good_files:
        content = path.read_bytes()
        rewritten = _rewritten(content, patient_id="PAT001", patient_name="Doe^Jane")
        expected = header_json(io.BytesIO(content))
        expected["00100010"] = {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane"}]}
        expected["00100020"] = {"vr": "LO", "Value": ["PAT001"]}
        assert header_json(io.BytesIO(rewritten)) == expected, path.name
        if not walk(io.BytesIO(content)).is_deflated:
            assert _pixel_data(rewritten) == _pixel_data(content), path.name


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
    dataset.pop("PatientID", None)
    elements = {int(tag): dataset.get_item(tag) for tag in dataset.keys()}  # noqa: SIM118 - iterating converts values
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
        prepare(file, walk(file), patient_id=patient_id, patient_name=patient_name)


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
    prepared = prepare(file, walk(file), patient_id="1")
    assert max(map(len, prepared.chunks())) == 1024 * 1024


def test_what_stands_in_a_file_is_told_by_its_place(ct_bytes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "ct.dcm"
    path.write_bytes(ct_bytes)
    with path.open("rb") as file:
        prepared = prepare(file, walk(file), patient_id="1", patient_name="Doe^Jane")
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
    prepare(file, layout, patient_id="PAT001")
    assert file.bytes_read < 1_000_000


def test_a_sequence_that_can_not_be_read_is_not_written_empty(
    ct_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = b"\xfe\xff\0\xe0" + struct.pack("<I", 10) + b"\x08\0\x60\0CS\x02\0CT"
    sequence = b"\x40\0\x75\x02SQ\0\0" + struct.pack("<I", len(item)) + item
    content = ct_bytes[:6288] + sequence + ct_bytes[6288:]
    assert item in _rewritten(content, patient_id="č")
    monkeypatch.setattr(DatasetAttributes, "items", lambda _self, _tag: [])
    with pytest.raises(FileRejected) as caught:
        _rewritten(content, patient_id="č")
    assert caught.value.code == "MALFORMED"
