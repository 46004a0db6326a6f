"""One header that Orthanc does not get at is told from an Orthanc that gets at none."""

import asyncio
from collections.abc import Sequence
from unittest.mock import AsyncMock

import pytest

from services.errors import OrthancTimedOut, OrthancUnavailable, RecordRefused
from services.orthanc.answers import SeriesListing, StoredFile
from services.orthanc.client import OrthancClient
from services.sync.reader import HANDFUL, HeaderReader, Headers, reason_of

TOO_SLOW = "Orthanc takes too long to read its header."


def orthanc_with(*, slow: Sequence[str], other_series: Sequence[Sequence[str]] = ()) -> AsyncMock:
    """An Orthanc that does not answer the headers of `slow`, nor series that hold one of them."""
    orthanc = AsyncMock(spec=OrthancClient)

    async def instance_tags(instance_id: str) -> dict[str, str]:
        if instance_id in slow:
            raise OrthancTimedOut
        return {"of": instance_id}

    orthanc.instance_tags.side_effect = instance_tags
    orthanc.series_instance_tags.side_effect = OrthancTimedOut
    orthanc.series.return_value = [
        SeriesListing(f"series {number}", "study", ids) for number, ids in enumerate(other_series)
    ]
    return orthanc


async def read(orthanc: AsyncMock, *instance_ids: str) -> Headers:
    files = [StoredFile(instance_id, "series", "uuid", 1, {}) for instance_id in instance_ids]
    reader = HeaderReader(orthanc, asyncio.Semaphore(4), instance_ids)
    return await reader.read("series", files, 0)


async def test_one_header_that_times_out_is_a_fault_while_others_are_read() -> None:
    orthanc = orthanc_with(slow=["b"], other_series=[["a", "b", "old"]])
    headers = await read(orthanc, "a", "b", "c")
    assert headers == Headers({"a": {"of": "a"}, "c": {"of": "c"}}, {"b": TOO_SLOW})
    orthanc.instance_tags.assert_awaited_with("old")


async def test_an_orthanc_that_reads_no_header_at_all_is_waited_for() -> None:
    orthanc = orthanc_with(slow=["b", "old", "older"], other_series=[["old"], ["b"], ["older"]])
    with pytest.raises(OrthancTimedOut):
        await read(orthanc, "b")


async def test_one_other_header_is_enough_to_blame_the_instance() -> None:
    orthanc = orthanc_with(slow=["b", "old"], other_series=[["old"], ["older"]])
    assert (await read(orthanc, "b")).faults == {"b": TOO_SLOW}


async def test_an_orthanc_that_is_away_meanwhile_is_waited_for() -> None:
    orthanc = orthanc_with(slow=["b"])
    orthanc.series.side_effect = OrthancUnavailable
    with pytest.raises(OrthancUnavailable):
        await read(orthanc, "b")


async def test_the_only_instance_of_an_orthanc_that_answers_is_a_fault() -> None:
    assert (await read(orthanc_with(slow=["b"]), "b")).faults == {"b": TOO_SLOW}


async def test_a_series_that_times_out_is_read_one_by_one() -> None:
    names = [f"instance {number}" for number in range(HANDFUL + 1)]
    orthanc = orthanc_with(slow=names[:1], other_series=[["old"]])
    headers = await read(orthanc, *names)
    assert (list(headers.tags), list(headers.faults)) == (names[1:], names[:1])


async def test_a_series_that_times_out_with_orthanc_is_waited_for() -> None:
    orthanc = orthanc_with(slow=[])
    orthanc.system.side_effect = OrthancTimedOut
    with pytest.raises(OrthancTimedOut):
        await read(orthanc, *(f"instance {number}" for number in range(HANDFUL + 1)))
    orthanc.instance_tags.assert_not_awaited()


def test_a_record_that_is_too_large_is_told_in_a_sentence() -> None:
    reason = reason_of(RecordRefused(detail="DocumentTooLarge"))
    assert reason == RecordRefused.default_message
