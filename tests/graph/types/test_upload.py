"""The closed list of reasons why a file is not stored."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from graph.types.upload import UploadError, UploadErrorCode
from services import errors
from services.errors import DatabaseUnavailable, Error, OrthancError
from services.ingest.service import SpoolingFailed

SERVICES = Path(errors.__file__).parent


def errors_below(kind: type[Error]) -> Iterator[type[Error]]:
    yield kind
    for each in kind.__subclasses__():
        yield from errors_below(each)


def test_every_reason_of_a_file_is_in_the_list() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in SERVICES.rglob("*.py"))
    rejections = set(re.findall(r'FileRejected\(\s*"([A-Z_]+)"', source))
    others: set[type[Error]] = {*errors_below(OrthancError), DatabaseUnavailable, SpoolingFailed}
    assert len(rejections) > 15
    # All archives are downloads: no upload waits for their connections.
    wanted = (rejections | {kind.code for kind in others} | {Error.code}) - {"SERVER_BUSY"}
    assert wanted <= {code.value for code in UploadErrorCode}


def test_a_code_that_no_file_should_have_is_an_internal_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Unforeseen(Error):
        code = "UNFORESEEN"

    shown = UploadError.of(Unforeseen("It is new."))
    assert shown == UploadError(code=UploadErrorCode.INTERNAL_ERROR, message="It is new.")
    assert "UNFORESEEN is no code of a file" in caplog.text
