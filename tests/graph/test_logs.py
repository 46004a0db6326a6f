"""An exception in the log says where it was raised and of what kind it is, and quotes nobody."""

import io
import json
import logging
import sys
from datetime import UTC, datetime

import pytest
from pymongo.errors import BulkWriteError

from graph.commands.progress import shown_progress
from graph.logs import configure_logging
from graph.state import correlation_id, trace_parent
from services.database import translated_database_faults
from services.errors import DatabaseUnavailable, FileRejected
from services.importing.outcome import Tally

CANARY = "Zyxwvut^Canary"


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
    assert "services.errors.DatabaseUnavailable: The database could not perform this." in text
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


def test_a_line_stands_above_a_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]  # rich asks the stream
    configure_logging("INFO")
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with shown_progress(Tally(), "Importing", is_dry=False) as step:
        step()
        logging.getLogger("services.test").error("it waits")
    before, line, after = terminal.getvalue().partition("ERROR services.test [-] it waits\n")
    assert line
    # The bar was erased for the line and is drawn anew below it.
    assert before.rpartition("\x1b[2K")[2].startswith(f"{datetime.now(UTC):%Y}-")
    assert "Importing" in before
    assert "Importing" in after


def test_a_line_can_be_a_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", "json")
    parent = trace_parent.set("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    request = correlation_id.set("0123456789abcdef")
    try:
        fields = {"method": "GET", "route": "/frames/v2/{signed:path}", "status": 200}
        logging.getLogger("orthanc_graphql.access").info("a %s\nline", 1, extra={"fields": fields})
        logging.getLogger("services.test").error("failed", exc_info=KeyError(CANARY))
    finally:
        correlation_id.reset(request)
        trace_parent.reset(parent)
    first, second = capsys.readouterr().err.splitlines()
    line = json.loads(first)
    assert datetime.fromisoformat(line.pop("time")).tzinfo is UTC
    assert line == {
        "level": "INFO",
        "logger": "orthanc_graphql.access",
        "correlationId": "0123456789abcdef",
        "message": "a 1\nline",
        "traceId": "0af7651916cd43dd8448eb211c80319c",
        "parentSpanId": "b7ad6b7169203331",
        **fields,
    }
    assert json.loads(second)["exception"] == "KeyError"
    assert CANARY not in second
