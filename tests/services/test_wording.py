import pytest

from services.wording import counted


@pytest.mark.parametrize(("number", "expected"), [(0, "0 files"), (1, "1 file"), (2, "2 files")])
def test_one_is_no_plural(number: int, expected: str) -> None:
    assert counted(number, "file") == expected
