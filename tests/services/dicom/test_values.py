import pytest

from services.dicom.values import (
    clean_person_name,
    clean_text,
    display_name,
    is_valid_uid,
    parse_date,
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
    ("name", "expected"),
    [
        ("Yamada^Tarou=山田^太郎", "Tarou Yamada (山田 太郎)"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Tarou Yamada (山田 太郎)"),
        ("=山田^太郎", "山田 太郎"),
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
