"""What the REST upload says of an archive."""

from graph.routes.dicom_api import refusal_message
from services.errors import FileRejected
from services.ingest.results import StoreResult, StoreStatus


def stored(number: int) -> StoreResult:
    return StoreResult(file_name=f"archive.zip/{number}.dcm", status=StoreStatus.STORED)


def failed(name: str) -> StoreResult:
    error = FileRejected("NOT_DICOM", f"This is {name}.")
    return StoreResult(file_name=name, status=StoreStatus.REJECTED, error=error)


def test_a_single_file_is_told_by_its_reason_alone() -> None:
    assert refusal_message([failed("ct.dcm")]) == "This is ct.dcm."


def test_a_member_is_named_with_the_number_of_the_others() -> None:
    results = [stored(1), failed("archive.zip/2.dcm"), failed("archive.zip/3.dcm"), stored(4)]
    assert refusal_message(results) == (
        "archive.zip/2.dcm: This is archive.zip/2.dcm. (1 more of 4 files failed)"
    )
    assert refusal_message([*results, failed("archive.zip/5.dcm")]) == (
        "archive.zip/2.dcm: This is archive.zip/2.dcm. (2 more of 5 files failed)"
    )


def test_the_only_member_that_failed_is_told_with_those_that_are_stored() -> None:
    assert refusal_message([stored(1), failed("archive.zip/2.dcm"), stored(3)]) == (
        "archive.zip/2.dcm: This is archive.zip/2.dcm. (the others of 3 files are stored)"
    )


def test_an_upload_without_failure_has_no_message() -> None:
    assert refusal_message([stored(1), stored(2)]) is None
