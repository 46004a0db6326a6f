import pytest

from services.dicom.character_sets import decode, encodings_of

LATIN_1 = "M\u00fcller^J\u00f6rg"
FRENCH = "\u0152uvrard^Zo\u00eb \u20ac"
RUSSIAN = "\u0418\u0432\u0430\u043d\u043e\u0432"
CHINESE = "\u738b^\u5c0f\u4e1c"
JAPANESE = "\uff94\uff8f^\u592a\u90ce"


@pytest.mark.parametrize(
    ("character_set", "value", "expected"),
    [
        *((term, LATIN_1.encode("latin_1"), LATIN_1) for term in (
            "ISO_IR 100", "ISO-IR 100", "ISO IR 100", "iso_ir_100", "ISO8859-1", "ISO_8859-1",
            "LATIN1", "ISO 2022 IR 100", "100", "", "nonsense", "ISO_IR 999",
        )),
        *((term, LATIN_1.encode(), LATIN_1) for term in (
            "ISO_IR 192", "UTF-8", "utf8", "UTF_8", "ISO IR 192", "ISO-IR-192", "UNICODE",
            # UTF-8 that the declared set would turn into nonsense.
            "ISO_IR 100", "", "ISO_IR 203",
        )),
        ("ISO_IR 203", FRENCH.encode("iso8859_15"), FRENCH),
        ("\\ISO 2022 IR 203", b"M^\x1b-b\xbd", "M^\u0153"),
        ("ISO_IR 144", RUSSIAN.encode("iso8859_5"), RUSSIAN),
        ("ISO-8859-5", RUSSIAN.encode("iso8859_5"), RUSSIAN),
        ("ISO_IR 144", f"{RUSSIAN} \u0428".encode(), f"{RUSSIAN} \u0428"),
        ("GB18030", CHINESE.encode("gb18030"), CHINESE),
        ("GB18030", CHINESE.encode(), CHINESE),
        ("GB2312", CHINESE.encode("gbk"), CHINESE),
        ("SHIFT_JIS", JAPANESE.encode("shift_jis"), JAPANESE),
        ("ISO_IR 13", "\u5c71\u7530".encode(), "\u5c71\u7530"),
        # Windows-1252 where Latin-1 has controls.
        ("ISO_IR 100", b"O\x92Neil^Zo\xeb", "O\u2019Neil^Zo\u00eb"),
        ("", b"\x8aimek", "\u0160imek"),
        ("ISO_IR 192", b"M\xfcller", "M\u00fcller"),
        ("ISO_IR 100", b"\x81\x8d", "\x81\x8d"),
        ("ISO_IR 100", b"Doe^Jane", "Doe^Jane"),
    ],
)  # fmt: skip
def test_text_is_read_as_well_as_its_bytes_allow(
    character_set: str, value: bytes, expected: str
) -> None:
    assert decode(value, encodings_of(character_set)) == expected


@pytest.mark.parametrize("number", [100, 101, 109, 110, 126, 127, 138, 144, 148, 203])
def test_every_letter_of_a_single_byte_set_is_read_as_declared(number: int) -> None:
    encodings = encodings_of(f"ISO_IR {number}")
    for byte in range(0xA0, 0x100):
        value = b"A" + bytes([byte]) + b"b"
        try:
            expected = value.decode(encodings[0])
        except UnicodeDecodeError:
            continue
        assert decode(value, encodings) == expected
