import io
from pathlib import Path

import pydicom.data
import pytest

from services.dicom.checking import check_file
from services.dicom.values import is_valid_uid

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
