"""The first look at a frame after a restart: from disk beside cold."""

import statistics
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.benchmarks.lean_client import open_lean_client
from tests.benchmarks.measuring import Row, seconds_of
from tests.benchmarks.stage import Server, open_server
from tests.benchmarks.studies import ct_files

_FILES = 40
_QUERY = """{ studies { nodes { series { instances {
  frame { url(fullRange: true) } } } } } }"""
_NOT_IN_MEMORY = {"FRAME_CACHE_BYTES": "0"}
"""Without it, each frame would be made ready while the one before it is looked at."""


async def run() -> list[Row]:
    """Look at the same frames three times, after a start each."""
    with tempfile.TemporaryDirectory(prefix="orthanc-graphql-") as folder:
        data_dir = Path(folder)
        on_disk = _NOT_IN_MEMORY | {"FRAME_CACHE_DIRECTORY": str(data_dir / "pictures")}
        async with open_server(data_dir, **on_disk) as server:
            for content in ct_files(_FILES):
                sent = await server.http.post(
                    "/api/dicom/upload", files={"file": ("ct.dcm", content)}
                )
                sent.raise_for_status()
            await _look(server, await _urls(server))
        async with open_server(data_dir, **on_disk) as server:
            kept = await _look(server, await _urls(server))
        async with open_server(data_dir, **_NOT_IN_MEMORY) as server:
            cold = await _look(server, await _urls(server))
    return [
        Row(
            case="first look at a frame after a restart, from disk",
            ours_seconds=kept,
            rival="cold",
            rival_seconds=cold,
            goal=1.5,
        )
    ]


async def _urls(server: Server) -> list[str]:
    data = await server.graphql(_QUERY)
    (study,) = data["studies"]["nodes"]
    return [image["frame"]["url"] for image in study["series"][0]["instances"]]


async def _look(server: Server, urls: Sequence[str]) -> float:
    """Return the median time of one frame; the first opens what all need."""
    async with open_lean_client(server.url, {}, connections=1) as client:
        times = [await seconds_of(partial(client.get, url)) for url in urls]
    return statistics.median(times[1:])
