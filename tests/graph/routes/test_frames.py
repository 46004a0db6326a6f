import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from unittest.mock import AsyncMock

import cv2
import httpx
import numpy as np
import pytest
import respx

from services.frames.variant import FrameVariant, PictureFormat
from tests.graph.problems import problem_of
from tests.graph.routes.stage import (
    FILE_PATH,
    INSTANCE_ID,
    ORTHANC_URL,
    RAW_PATH,
    REVISION,
    IndexedInstance,
    Stage,
    dicom_file,
    open_stage,
)
from tests.patience import PATIENCE_SECONDS

PIXELS = np.array([[[0], [50], [100]], [[150], [200], [250]]], np.uint16)
STORED = PIXELS.astype("<u2").tobytes()
"""As Orthanc gives the bytes of one of several frames: `GET /instances/{id}/frames/0/raw`."""

FILE = dicom_file(PIXELS)
"""Of one frame: it is sent whole, and the frame is cut out here."""

FOLLOWER_IDS = [INSTANCE_ID[:-1] + digit for digit in "0123456789"]


@pytest.fixture
def orthanc() -> Iterator[respx.MockRouter]:
    with respx.MockRouter(base_url=ORTHANC_URL, assert_all_called=False) as router:
        yield router


def url(
    stage: Stage, frame_index: int = 0, variant: FrameVariant | None = None, age: float = 0
) -> str:
    return stage.frames.signer.frame_path(
        INSTANCE_ID,
        REVISION,
        frame_index,
        variant or FrameVariant(),
        now=time.time() - age,
    ).path


async def test_a_frame_is_a_png_with_all_its_headers(orthanc: respx.MockRouter) -> None:
    orthanc.get(FILE_PATH).respond(content=FILE)
    async with open_stage(IndexedInstance(file_size_bytes=len(FILE))) as stage:
        answer = await stage.http.get(url(stage))
    assert answer.status_code == 200
    shown = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.asarray(shown).tolist() == [[0, 64, 128], [192, 255, 255]]
    assert answer.headers["content-type"] == "image/png"
    private, max_age, immutable = answer.headers["cache-control"].split(", ")
    assert (private, immutable) == ("private", "immutable")
    assert 1790 <= int(max_age.removeprefix("max-age=")) <= 2400
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"


async def test_a_warm_frame_asks_neither_orthanc_nor_the_index(orthanc: respx.MockRouter) -> None:
    route = orthanc.get(FILE_PATH).respond(content=FILE)
    async with open_stage(IndexedInstance(file_size_bytes=len(FILE))) as stage:
        first = await stage.http.get(url(stage))
        second = await stage.http.get(url(stage))
        head = await stage.http.head(url(stage))
        known = await stage.http.get(url(stage), headers={"If-None-Match": first.headers["etag"]})
        lines = [("If-None-Match", '"x"'), ("If-None-Match", f"W/{first.headers['etag']}")]
        known_by_second_line = await stage.http.get(url(stage), headers=lines)
        other = await stage.http.get(url(stage), headers={"If-None-Match": '"x", W/"y"'})
    assert known_by_second_line.status_code == 304
    assert second.content == first.content == other.content
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(first.content))
    assert (known.status_code, known.content) == (304, b"")
    assert known.headers["etag"] == first.headers["etag"]
    assert (route.call_count, stage.lookups) == (1, [INSTANCE_ID])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path + "?a=b",
        lambda path: path.replace(INSTANCE_ID, INSTANCE_ID[:-1] + "0"),
        lambda path: path.replace(REVISION, "deadbeee"),
        lambda path: path.replace("/0/default", "/00/default"),
        lambda path: path.replace("/default.png", "/w40.0x400.png"),
        lambda path: path.replace("/frames/v2/", "/frames/v2//"),
        lambda path: path.replace("default", "d%65fault"),
        lambda path: path.replace("k1.", "k2."),
        lambda _: "/frames/v2/",
        lambda _: "/frames/v2/k1.x.y/z",
    ],
)
async def test_what_nobody_signed_is_403_and_asks_nobody(
    spoil: Callable[[str], str], orthanc: respx.MockRouter
) -> None:
    async with open_stage(IndexedInstance()) as stage:
        answer = await stage.http.get(spoil(url(stage)))
    assert problem_of(answer) == (403, "FRAME_URL_INVALID", "This URL is not valid.")
    assert answer.headers["cache-control"] == "no-store"
    assert (orthanc.calls.call_count, stage.lookups) == (0, [])


async def test_an_old_url_is_410(orthanc: respx.MockRouter) -> None:
    async with open_stage(IndexedInstance()) as stage:
        answer = await stage.http.get(url(stage, age=2500))
    assert answer.status_code == 410
    assert answer.json()["code"] == "FRAME_URL_EXPIRED"
    assert orthanc.calls.call_count == 0


@pytest.mark.parametrize(
    ("instance", "frame_index", "status", "code"),
    [
        (None, 0, 404, "FRAME_NOT_FOUND"),
        (IndexedInstance(revision="00000000"), 0, 404, "FRAME_NOT_FOUND"),
        (IndexedInstance(), 1, 404, "FRAME_NOT_FOUND"),
        (IndexedInstance(use_orthanc_preview=False), 0, 415, "FRAME_NOT_RENDERABLE"),
        (IndexedInstance(number_of_frames=0), 0, 415, "FRAME_NOT_RENDERABLE"),
        (IndexedInstance(rows=65_535, columns=65_535), 0, 415, "FRAME_NOT_RENDERABLE"),
    ],
)
async def test_what_the_index_refuses_never_reaches_orthanc(
    instance: IndexedInstance | None,
    frame_index: int,
    status: int,
    code: str,
    orthanc: respx.MockRouter,
) -> None:
    async with open_stage(instance) as stage:
        answer = await stage.http.get(url(stage, frame_index))
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["cache-control"] == "no-store"
    assert orthanc.calls.call_count == 0


async def test_a_file_that_can_not_be_read_is_415(orthanc: respx.MockRouter) -> None:
    orthanc.get(RAW_PATH).respond(500)
    orthanc.get(FILE_PATH).respond(content=b"no DICOM")
    async with open_stage(IndexedInstance(file_size_bytes=len(b"no DICOM"))) as stage:
        refused = await stage.http.get(url(stage, variant=FrameVariant(40, 400)))
    assert problem_of(refused) == (415, "FRAME_NOT_RENDERABLE", "Its file can't be read.")


async def test_a_frame_is_a_jpeg_where_that_is_asked_for(orthanc: respx.MockRouter) -> None:
    orthanc.get(FILE_PATH).respond(content=FILE)
    async with open_stage(IndexedInstance(file_size_bytes=len(FILE))) as stage:
        variant = FrameVariant(picture_format=PictureFormat.JPEG)
        answer = await stage.http.get(url(stage, variant=variant))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    shown = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.abs(np.asarray(shown, int) - [[0, 64, 128], [192, 255, 255]]).max() <= 8


async def test_an_orthanc_that_is_away_is_503_with_retry_after(orthanc: respx.MockRouter) -> None:
    orthanc.get(FILE_PATH).mock(side_effect=httpx.ConnectError("refused"))
    async with open_stage(IndexedInstance()) as stage:
        answer = await stage.http.get(url(stage))
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "2"
    assert answer.json()["code"] == "ORTHANC_UNAVAILABLE"


@pytest.mark.parametrize("answer", [httpx.Response(500), httpx.Response(200, content=b"short")])
async def test_a_frame_that_orthanc_can_not_cut_is_cut_out_of_the_file_which_is_kept(
    answer: httpx.Response, orthanc: respx.MockRouter
) -> None:
    cut = orthanc.get(RAW_PATH).mock(return_value=answer)
    whole = orthanc.get(FILE_PATH).respond(content=dicom_file(np.stack([PIXELS, PIXELS])))
    async with open_stage(IndexedInstance(number_of_frames=2)) as stage:
        shown = await stage.http.get(url(stage))
        again = await stage.http.get(url(stage, variant=FrameVariant(full_range=True)))
    assert (shown.status_code, again.status_code) == (200, 200)
    picture = cv2.imdecode(np.frombuffer(shown.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.asarray(picture).tolist() == [[0, 64, 128], [192, 255, 255]]
    assert (cut.call_count, whole.call_count) == (1, 1)


async def test_a_file_that_ends_too_early_is_415(orthanc: respx.MockRouter) -> None:
    orthanc.get(RAW_PATH).respond(500)
    content = dicom_file(PIXELS[:1])
    orthanc.get(FILE_PATH).respond(content=content)
    async with open_stage(IndexedInstance(file_size_bytes=len(content))) as stage:
        answer = await stage.http.get(url(stage))
    assert problem_of(answer) == (
        415,
        "FRAME_NOT_RENDERABLE",
        "Its pixel data ends before this frame does.",
    )


async def test_a_frame_at_which_orthanc_died_is_taken_from_the_file_from_then_on(
    orthanc: respx.MockRouter,
) -> None:
    cut = orthanc.get(RAW_PATH).mock(side_effect=httpx.ReadError("reset"))
    whole = orthanc.get(FILE_PATH).respond(content=dicom_file(np.stack([PIXELS, PIXELS])))
    async with open_stage(IndexedInstance(number_of_frames=2)) as stage:
        away = await stage.http.get(url(stage))
        back = await stage.http.get(url(stage))
    assert (away.status_code, back.status_code) == (503, 200)
    assert (cut.call_count, whole.call_count) == (1, 1)


@pytest.mark.no_cover
async def test_who_owns_one_url_can_not_keep_the_renderer_busy(orthanc: respx.MockRouter) -> None:
    """Many renderings of one instance: so many a second, and others are served meanwhile."""
    orthanc.get(url__regex=r".*/file").respond(content=FILE)
    other = IndexedInstance(id=FOLLOWER_IDS[0], file_size_bytes=len(FILE))
    async with open_stage(IndexedInstance(file_size_bytes=len(FILE)), other) as stage:
        template = stage.frames.signer.frame_template(
            INSTANCE_ID, REVISION, now=time.time()
        ).path.replace("{frame}", "0")
        begun = time.monotonic()
        flood = [
            asyncio.create_task(stage.http.get(template.replace("{variant}", f"w{center}x{width}")))
            for center in range(20)
            for width in range(1, 51)
        ]
        signed = stage.frames.signer.frame_path(other.id, REVISION, 0, now=time.time())
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert (await stage.http.get(signed.path)).status_code == 200
        assert not all(one.done() for one in flood)
        statuses = Counter(answer.status_code for answer in await asyncio.gather(*flood))
        seconds = time.monotonic() - begun
    assert set(statuses) <= {200, 503}
    assert 0 < statuses[200] <= 300 + 60 * seconds + 1


@pytest.mark.parametrize("status", [404, 503])
async def test_what_orthanc_would_answer_elsewhere_too_is_not_asked_elsewhere(
    status: int, orthanc: respx.MockRouter
) -> None:
    orthanc.get(FILE_PATH).respond(status)
    async with open_stage(IndexedInstance()) as stage:
        assert (await stage.http.get(url(stage))).status_code == status


async def test_frames_after_the_one_asked_for_are_rendered_ahead(orthanc: respx.MockRouter) -> None:
    rendered_ahead = asyncio.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        if "/frames/3/" in request.url.path:
            rendered_ahead.set()
        return httpx.Response(200, content=STORED)

    route = orthanc.get(url__regex=rf".*/instances/{INSTANCE_ID}/frames/\d+/raw").mock(
        side_effect=answer
    )
    async with open_stage(IndexedInstance(number_of_frames=4)) as stage:
        await stage.http.get(url(stage))
        await asyncio.wait_for(rendered_ahead.wait(), PATIENCE_SECONDS)
        before = route.call_count
        for frame_index in range(4):
            assert (await stage.http.get(url(stage, frame_index))).status_code == 200
    assert (before, route.call_count) == (4, 4)


async def test_the_images_after_the_one_asked_for_are_rendered_ahead(
    orthanc: respx.MockRouter,
) -> None:
    rendered_ahead = asyncio.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        if FOLLOWER_IDS[7] in request.url.path:
            rendered_ahead.set()
        return httpx.Response(200, content=FILE)

    route = orthanc.get(url__regex=r".*/file").mock(side_effect=answer)
    followers = [
        IndexedInstance(id=follower, file_size_bytes=len(FILE)) for follower in FOLLOWER_IDS
    ]
    async with open_stage(IndexedInstance(file_size_bytes=len(FILE)), *followers) as stage:
        await stage.http.get(url(stage))
        await asyncio.wait_for(rendered_ahead.wait(), PATIENCE_SECONDS)
    asked = [call.request.url.path.split("/")[2] for call in route.calls]
    assert asked == [INSTANCE_ID, *FOLLOWER_IDS[:8]]


async def test_nothing_is_rendered_ahead_of_thumbnails_and_of_what_is_switched_off(
    orthanc: respx.MockRouter,
) -> None:
    route = orthanc.get(url__regex=r".*/file").respond(content=FILE)
    follower = IndexedInstance(id=FOLLOWER_IDS[0], use_orthanc_preview=False)
    async with open_stage(IndexedInstance(file_size_bytes=len(FILE)), follower) as stage:
        await stage.http.get(url(stage, variant=FrameVariant(max_size=2)))
        await stage.http.get(url(stage))
        await asyncio.sleep(0.1)
    assert [call.request.url.path for call in route.calls] == [FILE_PATH, FILE_PATH]


async def test_a_limit_of_the_server_is_not_learned_as_damage(orthanc: respx.MockRouter) -> None:
    orthanc.get(url__regex=r".*/frames/0/raw").respond(content=STORED)
    learned = AsyncMock()
    large = IndexedInstance(rows=100_000, columns=100_000)
    async with open_stage(large, mark_not_renderable=learned) as stage:
        assert (await stage.http.get(url(stage))).status_code == 415
    learned.assert_not_awaited()


async def test_no_picture_is_made_of_a_file_that_the_index_does_not_know_yet(
    orthanc: respx.MockRouter,
) -> None:
    orthanc.get(FILE_PATH).respond(content=FILE)
    async with open_stage(IndexedInstance(file_size_bytes=len(FILE) + 2)) as stage:
        answer = await stage.http.get(url(stage))
    assert problem_of(answer)[:2] == (404, "FRAME_NOT_FOUND")
