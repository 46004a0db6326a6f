"""A large file that arrives is indexed by its header, and takes no more memory than that here."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from services.embedded.mongod import EmbeddedMongod
from services.embedded.orthanc import run_orthanc
from tests.real.hostile_files import peak_bytes
from tests.real.large_files import FRAME_BYTES, large_file_head
from tests.real.sync_stage import open_stage

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
        await asyncio.to_thread(_forget_peak)
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


def _forget_peak() -> None:
    """Let the peak of this process (VmHWM) begin at what it holds now; see proc(5)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
