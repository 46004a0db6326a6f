"""Orthanc that is full, away or broken: an error per file that says so, and nothing indexed."""

import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from pydicom.data import get_testdata_file

from services.dicom.layout import WalkLimits
from services.errors import (
    OrthancAuthenticationFailed,
    OrthancError,
    OrthancFull,
)
from services.ingest.archives import ArchiveLimits
from services.ingest.service import Ingest, SentFile
from services.ingest.storing import FileStorage

if TYPE_CHECKING:
    from services.index.record import IndexRecord
    from services.orthanc.client import OrthancClient
    from services.orthanc.files import OrthancFiles


class Refusing:
    """Orthanc's files, none of which it takes."""

    def __init__(self, error: OrthancError) -> None:
        self._error = error

    def store(self, _chunks: Iterable[bytes], _size_bytes: int) -> None:
        raise self._error

    async def in_thread(self, work: Callable[[], object]) -> object:
        return work()


def sent(name: str) -> SentFile:
    body = Path(str(get_testdata_file(name, download=False))).read_bytes()
    return SentFile(name, lambda: io.BytesIO(body))


async def never_indexed(entries: Sequence["IndexRecord"]) -> None:
    raise AssertionError(entries)


@pytest.mark.parametrize("error", [OrthancFull(), OrthancAuthenticationFailed(), OrthancError()])
async def test_every_file_has_its_error_and_nothing_is_indexed(error: OrthancError) -> None:
    storage = FileStorage(
        cast("OrthancClient", None),
        cast("OrthancFiles", Refusing(error)),
        never_indexed,
        WalkLimits(),
    )
    ingest = Ingest(storage, limits=ArchiveLimits(), concurrency=1)
    results = await ingest.store([sent("CT_small.dcm"), sent("MR_small.dcm")])
    told = [(result.status, result.error and result.error.code) for result in results]
    assert told == [("FAILED", error.code)] * 2
    assert all(r.error and error.message in r.error.message for r in results)


async def test_a_fault_nobody_expected_fails_its_file_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    storage = FileStorage(
        cast("OrthancClient", None),
        cast("OrthancFiles", Refusing(cast("OrthancError", KeyError("Doe^Jane")))),
        never_indexed,
        WalkLimits(),
    )
    ingest = Ingest(storage, limits=ArchiveLimits(), concurrency=1)
    results = await ingest.store([sent("CT_small.dcm"), sent("README.txt")])
    assert [result.status for result in results] == ["FAILED", "REJECTED"]
    assert results[0].error is not None
    reference = results[0].error.message.split()[-1].rstrip(".")
    assert reference in caplog.text
    assert "Doe" not in caplog.text + results[0].error.message
