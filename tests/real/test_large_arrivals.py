"""Large files that arrive: little memory is used, and no frame is promised that is not there."""

import asyncio
import os
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import RLELossless

from services.embedded.mongod import EmbeddedMongod
from services.embedded.orthanc import EmbeddedOrthanc, run_orthanc
from services.runtime import Runtime
from tests.real.hostile_files import forget_peak, peak_bytes
from tests.real.large_files import FRAME_BYTES, large_file_head
from tests.real.sync_stage import open_stage
from tests.real.test_frames_cutting import dataset, encapsulated, shown
from tests.servers import RunningServer

MIB = 1024 * 1024
SIZE_MIB = int(os.environ.get("LARGE_ARRIVAL_MIB", "64"))
"""Set it to 1024 for a file of 1 GiB, which takes 3.3 GiB of Orthanc's memory."""


async def test_the_header_of_a_large_file_is_read_without_its_pixels_in_memory(
    mongodb: EmbeddedMongod, tmp_path: Path
) -> None:
    head = large_file_head(2 * SIZE_MIB)

    async def body() -> AsyncIterator[bytes]:
        yield head
        for _ in range(2 * SIZE_MIB):
            yield bytes(FRAME_BYTES)

    memory_bytes = (4 * SIZE_MIB + 1024) * MIB
    async with (
        run_orthanc(tmp_path / "orthanc", memory_bytes=memory_bytes) as orthanc,
        open_stage(mongodb, orthanc) as stage,
    ):
        answer = await stage.modality.post("/instances", content=body())
        instance_id = answer.raise_for_status().json()["ID"]
        await asyncio.to_thread(forget_peak, os.getpid())
        before = peak_bytes(os.getpid())
        done = await stage.sync.reconciler.reconcile([instance_id])
        assert peak_bytes(os.getpid()) - before < 8 * MIB
        assert done.indexed == {instance_id}
        indexed = await stage.database["instances"].find_one({"_id": instance_id})
        assert indexed is not None
        assert (indexed["numberOfFrames"], indexed["fileSizeBytes"]) == (
            2 * SIZE_MIB,
            len(head) + SIZE_MIB * MIB,
        )


SIDE = 1024
DECLARED, PRESENT = 5, 3


def rle_of_rows(value: int) -> bytes:
    """Encode a frame of one grey as RLE Lossless, in literal runs: over 1 MiB (PS3.5 G)."""
    run = bytes([127]) + bytes([value]) * 128
    return struct.pack("<16I", 1, 64, *[0] * 14) + run * (SIDE * SIDE // 128)


@pytest.mark.parametrize(
    "entries", [0, PRESENT, DECLARED], ids=["no table", "right table", "wrong table"]
)
async def test_frames_that_are_declared_and_not_there_are_not_found(
    server: RunningServer, runtime: Runtime, orthanc: EmbeddedOrthanc, entries: int
) -> None:
    made = dataset(RLELossless, DECLARED, bits=8)
    made.Rows = made.Columns = SIDE
    made.WindowCenter, made.WindowWidth = 128, 256
    frames = [rle_of_rows(50 * (index + 1)) for index in range(PRESENT)]
    # The entries of the wrong table are those of fragments: Orthanc believes them.
    table = [(index % PRESENT) * (len(frames[0]) + 8) for index in range(entries)]
    content = encapsulated(made, frames, table)
    pictures = await shown(runtime, orthanc, content, PRESENT)
    assert all(len(np.unique(picture)) == 1 for picture in pictures)
    for index, status in ((PRESENT - 1, 200), (PRESENT, 404), (DECLARED - 1, 404)):
        answer = await server.http.get(f"/api/dicom/studies/1.2/frames/{index}")
        assert answer.status_code == status, answer.text
