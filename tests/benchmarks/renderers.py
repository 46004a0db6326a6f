"""The renderer processes: back after the death of one, and the memory of all."""

import asyncio
import io
import os
import signal
import time
from pathlib import Path

import pydicom
from pydicom.encaps import get_frame

from services.dicom.display import DisplayHeader
from services.errors import RendererCrashed
from services.frames.renderer import RendererLimits, RendererPool, open_renderers
from services.frames.rendering import RenderRequest
from services.frames.variant import FrameVariant
from tests.benchmarks.measurement import Bound, Line
from tests.benchmarks.studies import radiograph_files

_DEATHS = 5


async def run() -> list[Line]:
    """Render radiographs with two renderers, and kill them in between."""
    requests = [_request(content) for content in radiograph_files(_DEATHS + 2)]
    async with open_renderers(RendererLimits(processes=2)) as pool:
        await asyncio.gather(*(pool.render(one) for one in requests[:2]))
        memory = sum(_memory_bytes(pid) for pid in _processes(pool))
        seconds = []
        for request in requests[2:]:
            begin = time.perf_counter()
            for pid in pool.worker_pids:
                os.kill(pid, signal.SIGKILL)
            try:
                await pool.render(request)
            except RendererCrashed:
                # It had the frame already when it died: the client asks again.
                await pool.render(request)
            seconds.append(time.perf_counter() - begin)
    return [
        Bound(
            case="first JPEG 2000 radiograph after the death of all renderers",
            value=max(seconds),
            unit="s",
            at_most=1.5,
        ),
        Bound(
            case="memory: two renderers and their template after a radiograph each",
            value=memory / 1e6,
            unit="MB",
            at_most=400,
        ),
    ]


def _request(content: bytes) -> RenderRequest:
    dataset = pydicom.dcmread(io.BytesIO(content))
    header = DisplayHeader(content)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    description = header.description(dataset.file_meta.TransferSyntaxUID)
    return RenderRequest(frame, description, header.frame(0), FrameVariant())


def _processes(pool: RendererPool) -> list[int]:
    template = pool.template_pid
    return pool.worker_pids + ([] if template is None else [template])


def _memory_bytes(pid: int) -> int:
    """Return the memory of a process, of shared pages its share."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the kernel tells no Pss")
