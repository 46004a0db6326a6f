"""One file that Orthanc does not send is told from an Orthanc that sends none."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar
from unittest.mock import AsyncMock

import pytest
from pydicom.data import get_testdata_file

from services.dicom.layout import WalkLimits
from services.errors import OrthancTimedOut, OrthancUnavailable, RecordRefused
from services.orthanc.answers import SeriesListing, StoredFile, StudyListing
from services.orthanc.beginning import FileBeginnings
from services.orthanc.client import OrthancClient
from services.sync.reader import Reading, read_entries, reason_of

TOO_SLOW = "Orthanc takes too long to read its header."


_T = TypeVar("_T")


def orthanc_with(
    content: bytes, *, slow: Sequence[str], other_series: Sequence[Sequence[str]] = ()
) -> AsyncMock:
    """An Orthanc that does not send the files of `slow`."""
    orthanc = AsyncMock(spec=OrthancClient)

    async def read(
        stored: StoredFile, parse: Callable[[BinaryIO, int | None], _T], *, pixel_data_bytes: int
    ) -> _T:
        assert pixel_data_bytes > 0
        if stored.instance_id in slow:
            raise OrthancTimedOut
        return parse(io.BytesIO(content), None)

    orthanc.beginnings = AsyncMock(spec=FileBeginnings, read=read)
    orthanc.stored_files.side_effect = lambda ids: [stored(content, id_) for id_ in ids]
    orthanc.series_study.return_value = StudyListing("study", (), "", is_stable=True)
    orthanc.series.return_value = [
        SeriesListing(f"series {number}", "study", ids) for number, ids in enumerate(other_series)
    ]
    return orthanc


def stored(content: bytes, instance_id: str) -> StoredFile:
    return StoredFile(instance_id, "series", "uuid", len(content), {})


@pytest.fixture(scope="module")
def content() -> bytes:
    return Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()


async def read(orthanc: AsyncMock, content: bytes, *instance_ids: str) -> Reading:
    files = [stored(content, instance_id) for instance_id in instance_ids]
    return await read_entries(orthanc, orthanc.beginnings, files, limits=WalkLimits())


async def test_one_file_that_times_out_is_a_fault_while_others_are_read(content: bytes) -> None:
    orthanc = orthanc_with(content, slow=["b"], other_series=[["a", "b", "old"]])
    reading = await read(orthanc, content, "a", "b", "c")
    assert [entry.ids.instance for entry in reading.entries] == ["a", "c"]
    assert reading.faults == {"b": TOO_SLOW}
    orthanc.stored_files.assert_awaited_once_with(["old"])
    # Orthanc computed other ids than these: it is asked once for all of the series.
    orthanc.series_study.assert_awaited_once_with("series")


async def test_an_orthanc_that_sends_no_file_at_all_is_waited_for(content: bytes) -> None:
    others = [["old"], ["b"], ["older"]]
    orthanc = orthanc_with(content, slow=["b", "old", "older"], other_series=others)
    with pytest.raises(OrthancTimedOut):
        await read(orthanc, content, "b")


async def test_one_other_file_is_enough_to_blame_the_instance(content: bytes) -> None:
    orthanc = orthanc_with(content, slow=["b", "old"], other_series=[["old"], ["older"]])
    assert (await read(orthanc, content, "b")).faults == {"b": TOO_SLOW}


async def test_an_orthanc_that_goes_away_is_waited_for(content: bytes) -> None:
    orthanc = orthanc_with(content, slow=["b"])
    orthanc.series.side_effect = OrthancUnavailable
    with pytest.raises(OrthancUnavailable):
        await read(orthanc, content, "b")


async def test_the_only_instance_of_an_orthanc_that_answers_is_a_fault(content: bytes) -> None:
    assert (await read(orthanc_with(content, slow=["b"]), content, "b")).faults == {"b": TOO_SLOW}


async def test_a_stored_file_that_is_refused_is_a_fault_with_the_reason_of_uploads(
    content: bytes,
) -> None:
    cut_off = content[:2000]
    reading = await read(orthanc_with(cut_off, slow=[]), cut_off, "a")
    assert (reading.entries, list(reading.faults)) == ([], ["a"])
    assert reading.faults["a"].startswith("The file ")


def test_a_record_that_is_too_large_is_told_in_a_sentence() -> None:
    reason = reason_of(RecordRefused(detail="DocumentTooLarge"))
    assert reason == RecordRefused.default_message
