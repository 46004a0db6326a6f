import pytest

from services.dicom.values import (
    clean_identifier,
    clean_person_name,
    clean_text,
    decode,
    display_name,
    encodings_of,
    is_valid_uid,
    names_agree,
    parse_date,
    parse_datetime,
    parse_float,
    parse_int,
    parse_time,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20040119", "2004-01-19"),
        ("1995.09.03", "1995-09-03"),
        (" 20040119 ", "2004-01-19"),
        ("20040119-20040120", None),
        ("20041319", None),
        ("20230229", None),
        ("00000000", None),
        ("yesterday", None),
        ("", None),
        (None, None),
    ],
)
def test_dates(text: str | None, expected: str | None) -> None:
    assert parse_date(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("07", "07:00:00"),
        ("0727", "07:27:00"),
        ("072730", "07:27:30"),
        ("072730.5", "07:27:30.5"),
        ("072730.123456", "07:27:30.123456"),
        ("07:27:30", "07:27:30"),
        ("235960", "23:59:59"),
        ("2460", None),
        ("7", None),
        ("noon", None),
        (None, None),
    ],
)
def test_times(text: str | None, expected: str | None) -> None:
    assert parse_time(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12", 12),
        (" +7 ", 7),
        ("3\\4", 3),
        ("3¥4", 3),
        ("3¥4\\5", 3),
        ("1.0", 1),
        ("99999999999", None),
        ("1_000", None),
        ("٣", None),
        ("x", None),
        (None, None),
    ],
)
def test_integers(text: str | None, expected: int | None) -> None:
    assert parse_int(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("40", 40.0),
        ("40¥400", 40.0),
        ("-1.5e2\\7", -150.0),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("1_0", None),
        ("", None),
        (None, None),
    ],
)
def test_decimals(text: str | None, expected: float | None) -> None:
    assert parse_float(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  CT \0", "CT"),
        (" two words ", "two words"),
        ("  ", None),
        ("a\x7fb", "ab"),
        ("a\x1bb\x00c", "abc"),
        ("a\u202eb\u2066c", "abc"),
        ("two\r\nlines", "two lines"),
        (" \0 ", None),
        (None, None),
    ],
)
def test_texts_lose_what_is_invisible(text: str | None, expected: str | None) -> None:
    assert clean_text(text) == expected


def test_component_groups_of_a_name_stay() -> None:
    assert clean_person_name(" Yamada ^Tarou ^^^ =山田^太郎=") == "Yamada^Tarou=山田^太郎"
    assert clean_person_name("^^^^") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  OVI ", "OVI"),
        ("\u00a0OVI\u200b", "OVI"),
        ("\ufeffOVI\u3000", "OVI"),
        ("O VI\0", "O VI"),
        ("\u3164OVI\u2800 ", "OVI"),
        (" \u00a0", ""),
        (None, ""),
    ],
)
def test_identifiers_lose_their_padding(text: str | None, expected: str) -> None:
    assert clean_identifier(text) == expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("Huber^Maria", "HUBER^maria ", True),
        ("Huber^Maria", "Huber^Maria^^^", True),
        ("Huber  Lang^Maria", "huber lang^maria", True),
        ("M\u00fcller", "Mu\u0308ller", True),
        ("Wang^XiaoDong", "Wang^XiaoDong=\u738b^\u5c0f\u4e1c", True),
        ("Wang^XiaoDong=\u738b", "Wang^XiaoDong=\u674e", False),
        ("Huber^Maria", "Attacker^Eve", False),
        ("Huber^Maria", None, True),
        ("", "Huber^Maria", True),
    ],
)
def test_names_of_one_person_agree(one: str | None, other: str | None, *, expected: bool) -> None:
    assert names_agree(one, other) is expected
    assert names_agree(other, one) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20200102030405.123+0100", "2020-01-02T03:04:05.123+01:00"),
        ("2020010203", "2020-01-02T03:00:00"),
        ("20200102030405", "2020-01-02T03:04:05"),
        ("20200102030405-0930", "2020-01-02T03:04:05-09:30"),
        ("20200102", None),
        ("20201302030405", None),
        ("202001022504", None),
        ("", None),
        (None, None),
    ],
)
def test_moments(text: str | None, expected: str | None) -> None:
    assert parse_datetime(text) == expected


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


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Yamada^Tarou=山田^太郎", "Tarou Yamada (山田 太郎)"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Tarou Yamada (山田 太郎)"),
        ("=山田^太郎", "山田 太郎"),
        # East Asian names read family name first in every group.
        ("王^小东", "王 小东"),
        ("王^小东=王^小东", "王 小东"),
        ("欧阳^娜娜^^^博士", "欧阳 娜娜 博士"),
        ("Wang^XiaoDong=王^小東", "XiaoDong Wang (王 小東)"),
        ("山田^太郎=山田^太郎=やまだ^たろう", "山田 太郎 (やまだ たろう)"),
        ("やまだ^たろう", "やまだ たろう"),
        ("ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう", "ﾔﾏﾀﾞ ﾀﾛｳ (山田 太郎)"),
        ("ヤマダ^タロウ", "ヤマダ タロウ"),
        ("김^희중", "김 희중"),
        ("Hong^Gildong=洪^吉洞=홍^길동", "Gildong Hong (洪 吉洞)"),
        ("Hong^Gildong==홍^길동", "Gildong Hong (홍 길동)"),
        ("홍^길동", "홍 길동"),
        ("ㄨㄤˊ^ㄒㄧㄠˇ", "ㄨㄤˊ ㄒㄧㄠˇ"),
        ("𠮷田^花子", "𠮷田 花子"),
        # Others read given name first.
        ("Nguyễn^Văn An", "Văn An Nguyễn"),
        ("Иванова^Мария^Петровна", "Мария Петровна Иванова"),
        ("Παπαδόπουλος^Γιώργος", "Γιώργος Παπαδόπουλος"),
        ("שרון^דבורה", "דבורה שרון"),
        ("قباني^لنزار", "لنزار قباني"),
        ("สุขใจ^สมชาย", "สมชาย สุขใจ"),
        ("शर्मा^अनिता", "अनिता शर्मा"),
        ("Łukasiewicz^Żaneta", "Żaneta Łukasiewicz"),
        ("Çavuşoğlu^Gül", "Gül Çavuşoğlu"),
        ("Գրիգորյան^Անի", "Անի Գրիգորյան"),
        ("ბერიძე^ნინო", "ნინო ბერიძე"),
        ("van der Berg^Jan^^dr.", "dr. Jan van der Berg"),
        ("==やまだ^たろう", "やまだ たろう"),
        (
            "Adams^John Robert Quincy^^Rev.^B.A. M.Div.",
            "Rev. John Robert Quincy Adams, B.A. M.Div.",
        ),
        ("Doe^Jane^Mary", "Jane Mary Doe"),
        ("^Jane", "Jane"),
        ("Doe", "Doe"),
        ("^^^^Jr.", "Jr."),
        ("", None),
        (None, None),
    ],
)
def test_names_for_display(name: str | None, expected: str | None) -> None:
    assert display_name(name) == expected


@pytest.mark.parametrize(
    ("uid", "valid"),
    [
        ("1.2.840.10008.1.2", True),
        ("1.02.3", True),
        ("1" * 64, True),
        ("1" * 65, False),
        ("1.2.a", False),
        ("1/2", False),
        ("1.2\n", False),
        ("\u0661.\u0662", False),
        ("", False),
        (None, False),
    ],
)
def test_uids(uid: str | None, valid: bool) -> None:
    assert is_valid_uid(uid) is valid
