"""Windows, position and orientation of frames: each frame speaks for itself."""

from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from services.embedded.orthanc import EmbeddedOrthanc
from tests.real.sync_stage import modality_client
from tests.servers import RunningServer

QUERY = """query ($uid: String!) { instance(sopInstanceUID: $uid) { frames {
  index position orientation windows { center width explanation function } } } }"""


def read(name: str) -> tuple[bytes, str]:
    path = Path(str(get_testdata_file(name, download=False)))
    return path.read_bytes(), dcmread(path, stop_before_pixels=True).SOPInstanceUID


@pytest.mark.parametrize(
    ("name", "positions", "orientation", "windows"),
    [
        (
            "eCT_Supplemental.dcm",
            [[99.5, -301.5, -159.0], [99.5, -301.5, -149.0]],
            [-1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
            [{"center": 49.0, "width": 102.0, "explanation": None, "function": "LINEAR"}],
        ),
        (
            "CT_small.dcm",
            [[-158.135803, -179.035797, -75.699997]],
            [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
            [],
        ),
    ],
)
async def test_each_frame_says_where_it_lies_and_how_it_is_shown(
    *,
    server: RunningServer,
    empty_orthanc: EmbeddedOrthanc,
    name: str,
    positions: list[list[float]],
    orientation: list[float],
    windows: list[dict[str, Any]],
) -> None:
    content, uid = read(name)
    async with modality_client(empty_orthanc) as http:
        stored = await http.post("/instances", content=content)
    assert server.runtime.sync is not None
    await server.runtime.sync.reconciler.reconcile([stored.json()["ID"]])
    variables = {"uid": uid}
    answer = await server.http.post("/graphql", json={"query": QUERY, "variables": variables})
    assert answer.json() == {
        "data": {
            "instance": {
                "frames": [
                    {
                        "index": index,
                        "position": position,
                        "orientation": orientation,
                        "windows": windows,
                    }
                    for index, position in enumerate(positions)
                ]
            }
        }
    }
