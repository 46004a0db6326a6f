"""A picture that can't be decoded: told once, and not promised again."""

import io
from typing import Any

import httpx
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames

from tests.graph.problems import problem_of
from tests.servers import RunningServer

QUERY = """query ($uid: String!) { study(studyInstanceUID: $uid) {
  thumbnail { url } numberOfFrames
  series { numberOfFrames instances { isRenderable notRenderableReason frames { url } } } } }"""


def cut_off() -> tuple[bytes, str]:
    """Return a file of one frame in JPEG 2000 that ends in its middle, and its study's UID."""
    path = str(get_testdata_file("MR_small_jp2klossless.dcm", download=False))
    dataset = dcmread(path)
    [frame] = generate_frames(dataset.PixelData, number_of_frames=1)
    dataset.PixelData = encapsulate([frame[: len(frame) // 2]])
    written = io.BytesIO()
    dataset.save_as(written)
    return written.getvalue(), dataset.StudyInstanceUID


async def ask(http: httpx.AsyncClient, uid: str) -> dict[str, Any]:
    body = {"query": QUERY, "variables": {"uid": uid}}
    study: dict[str, Any] = (await http.post("/graphql", json=body)).json()["data"]["study"]
    return study


async def test_what_decoding_shows_is_learned(server: RunningServer) -> None:
    content, uid = cut_off()
    http = server.http
    await http.post("/api/dicom/upload", files={"file": ("a.dcm", content)})
    before = await ask(http, uid)
    [instance] = before["series"][0]["instances"]
    assert instance["isRenderable"]

    refused = await http.get(instance["frames"][0]["url"])
    status, code, reason = problem_of(refused)
    assert (status, code) == (415, "FRAME_NOT_RENDERABLE")

    assert await ask(http, uid) == {
        "thumbnail": None,
        "numberOfFrames": 0,
        "series": [
            {
                "numberOfFrames": 0,
                "instances": [
                    {
                        "isRenderable": False,
                        "notRenderableReason": reason,
                        "frames": [],
                    }
                ],
            }
        ],
    }
    again = await http.get(instance["frames"][0]["url"])
    assert problem_of(again) == problem_of(refused)
