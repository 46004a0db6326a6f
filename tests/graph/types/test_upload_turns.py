"""Many results of an upload are prepared in turns."""

import asyncio

from graph.types.upload import UploadDicomPayload
from services.errors import FileRejected
from services.ingest.results import StoreStatus, refused


async def test_other_requests_are_answered_while_results_are_prepared() -> None:
    error = FileRejected("NOT_DICOM", "This is not a DICOM file.")
    results = [refused(f"{n}.txt", error, StoreStatus.REJECTED) for n in range(40_000)]
    preparing = asyncio.create_task(UploadDicomPayload.of(results))
    turns = 0
    while not preparing.done():
        await asyncio.sleep(0)
        turns += 1
    payload = preparing.result()
    assert turns > 2
    assert [one.file_name for one in payload.results] == [one.file_name for one in results]
    assert (payload.stored_count, payload.already_stored_count, payload.failed_count) == (
        0,
        0,
        40_000,
    )
