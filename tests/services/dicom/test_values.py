import pytest

from services.dicom.values import (
    clean_identifier,
    clean_text,
    is_valid_uid,
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
