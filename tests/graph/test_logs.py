"""An exception in the log says where it was raised and of what kind it is, and quotes nobody."""

import logging
from collections.abc import Iterator

import pytest
from pymongo.errors import BulkWriteError

from graph.logs import configure_logging
from services.database import translated_database_faults
from services.errors import DatabaseUnavailable, FileRejected

CANARY = "Zyxwvut^Canary"


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def logged(exc: BaseException, capsys: pytest.CaptureFixture[str]) -> str:
    configure_logging("INFO")
    logging.getLogger("services.test").error("it failed", exc_info=exc)
    return capsys.readouterr().err


def test_what_mongodb_says_of_a_document_is_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    operation = {"q": {"_id": "1"}, "u": {"$set": {"patientName": CANARY}}}
    with pytest.raises(DatabaseUnavailable) as raised, translated_database_faults():
        raise BulkWriteError({"writeErrors": [{"index": 0, "code": 2, "op": operation}]})
    text = logged(raised.value, capsys)
    assert CANARY not in text
    assert "BulkWriteError\n" in text
    assert "services.errors.DatabaseUnavailable: The database could not carry this out." in text
    assert __file__ in text
    assert "services/database.py" in text


def test_neither_causes_nor_groups_are_quoted(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        try:
            float(CANARY)
        except ValueError:
            raise KeyError(CANARY)  # noqa: B904  # the context is what is tested
    except KeyError as exc:
        text = logged(ExceptionGroup(CANARY, [exc, FileRejected("CODE", "Told.")]), capsys)
    assert CANARY not in text
    assert all(name in text for name in ("ExceptionGroup", "KeyError", "ValueError", "Told."))


def test_what_the_system_says_of_a_file_is_logged_without_its_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = logged(FileNotFoundError(2, "No such file or directory", f"/in/{CANARY}.dcm"), capsys)
    assert "FileNotFoundError: No such file or directory" in text
    assert CANARY not in text
