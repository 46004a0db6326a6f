"""A file that Orthanc has and the index can't take: its sender learns that it is stored."""

import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from pydicom.data import get_testdata_file

from services.dicom.layout import WalkLimits
from services.errors import OrthancAuthenticationFailed, OrthancError, OrthancUnavailable
from services.ingest.archives import ArchiveLimits
from services.ingest.service import Ingest, SentFile
from services.ingest.storing import FileStorage
from services.orthanc.answers import StoreAnswer

if TYPE_CHECKING:
    from services.index.record import IndexRecord
    from services.orthanc.client import OrthancClient
    from services.orthanc.files import OrthancFiles


class Taking:
    """Takes all files, and does not tell what it has."""

    def __init__(self, error: OrthancError) -> None:
        self._error = error

    def store(self, _chunks: Iterable[bytes], _size_bytes: int) -> StoreAnswer:
        return StoreAnswer.from_json(
            {
                "ID": "instance",
                "ParentPatient": "patient",
                "ParentStudy": "study",
                "ParentSeries": "series",
                "Status": "Success",
            }
        )

    async def in_thread(self, work: Callable[[], object]) -> object:
        return work()

    async def stored_files(self, _instance_ids: Sequence[str]) -> None:
        raise self._error


class Failing:
    """An Orthanc that does not answer."""

    def __init__(self, error: OrthancError) -> None:
        self._error = error

    async def system(self) -> None:
        raise self._error


async def never_indexed(entries: Sequence["IndexRecord"]) -> None:
    raise AssertionError(entries)


@pytest.mark.parametrize(
    "error", [OrthancError(), OrthancAuthenticationFailed(), OrthancUnavailable()]
)
async def test_a_stored_file_is_never_said_not_to_be_stored(error: OrthancError) -> None:
    storage = FileStorage(
        cast("OrthancClient", Failing(error)),
        cast("OrthancFiles", Taking(error)),
        never_indexed,
        WalkLimits(),
        return_seconds=0.2,
    )
    ingest = Ingest(storage, limits=ArchiveLimits(), concurrency=1)
    path = Path(str(get_testdata_file("CT_small.dcm", download=False)))
    [result] = await ingest.store([SentFile("ct.dcm", lambda: io.BytesIO(path.read_bytes()))])
    assert result.status == "FAILED"
    assert result.error is not None
    assert result.error.code == error.code
    assert result.error.message.startswith("The file is stored in Orthanc PACS, but could not be")
