"""Results are data: they keep nothing of the code that found them."""

import gc
import weakref
from functools import partial

import pytest

from services.errors import FileRejected, OrthancUnavailable
from services.ingest.results import StoreResult, StoreStatus, failed


class _Content:
    """What a function works on."""


def _result_of_failure(kept: list[weakref.ref[_Content]], error: Exception) -> StoreResult | None:
    content = _Content()
    kept.append(weakref.ref(content))
    try:
        try:
            int("x")
        except ValueError as exc:
            raise error from exc
    except Exception as exc:  # noqa: BLE001  # as the services catch it
        return failed("1.dcm", exc)
    return None


@pytest.mark.no_cover
def test_a_result_keeps_no_local_variables_of_what_failed() -> None:
    for make in (partial(FileRejected, "NOT_DICOM", "No."), OrthancUnavailable, ValueError):
        kept: list[weakref.ref[_Content]] = []
        result = _result_of_failure(kept, make())
        gc.collect()
        assert result is not None
        assert result.error is not None
        assert [reference() for reference in kept] == [None]
        assert result.status is not StoreStatus.STORED
