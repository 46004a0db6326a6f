import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import respx
from starlette.types import Message, Send

from tests.graph.routes.stage import ORTHANC_URL, STUDY_REVISION, open_stage

STUDY_ID = "11111111-22222222-33333333-44444444-55555555"
SERIES_ID = "66666666-22222222-33333333-44444444-55555555"


@pytest.fixture
def orthanc() -> Iterator[respx.MockRouter]:
    with respx.MockRouter(base_url=ORTHANC_URL, assert_all_called=False) as router:
        yield router


async def test_an_archive_is_streamed_under_orthancs_identifier(orthanc: respx.MockRouter) -> None:
    orthanc.get(f"/studies/{STUDY_ID}/archive").respond(content=b"PK zip")
    async with open_stage() as stage:
        path = stage.frames.signer.archive_path(STUDY_ID, STUDY_REVISION, now=time.time()).path
        answer = await stage.http.get(path)
        head = await stage.http.head(path)
    assert (answer.status_code, answer.content) == (200, b"PK zip")
    assert answer.headers["content-type"] == "application/zip"
    assert (
        answer.headers["content-disposition"]
        == head.headers["content-disposition"]
        == f'attachment; filename="{STUDY_ID}.zip"'
    )


async def test_the_archive_of_a_series_is_streamed(orthanc: respx.MockRouter) -> None:
    orthanc.get(f"/series/{SERIES_ID}/archive").mock(
        side_effect=[httpx.Response(200, content=b"PK zip"), httpx.Response(404)]
    )
    async with open_stage() as stage:
        signer = stage.frames.signer
        path = signer.series_archive_path(SERIES_ID, STUDY_ID, STUDY_REVISION, now=time.time()).path
        answer = await stage.http.get(path)
        gone = await stage.http.get(path)
        deleted = await stage.http.get(
            signer.series_archive_path(SERIES_ID, STUDY_ID, "00000000001", now=time.time()).path
        )
    assert (answer.status_code, answer.content) == (200, b"PK zip")
    assert f'"{SERIES_ID}.zip"' in answer.headers["content-disposition"]
    assert (gone.status_code, deleted.status_code) == (404, 404)
    assert orthanc.calls.call_count == 2


@pytest.mark.parametrize(
    ("fault", "status"),
    [(httpx.Response(404), 404), (httpx.Response(503), 503), (httpx.ConnectError("no"), 503),
     (httpx.Response(500), 502), (httpx.Response(200), 404)],
)  # fmt: skip
async def test_faults_before_the_first_byte_are_statuses(
    fault: httpx.Response | Exception, status: int, orthanc: respx.MockRouter
) -> None:
    orthanc.get(f"/studies/{STUDY_ID}/archive").mock(side_effect=[fault])
    async with open_stage() as stage:
        path = stage.frames.signer.archive_path(STUDY_ID, STUDY_REVISION, now=time.time()).path
        answer = await stage.http.get(path)
    assert answer.status_code == status
    assert answer.headers["cache-control"] == "no-store"


async def test_a_forged_archive_url_is_403_and_asks_nobody(orthanc: respx.MockRouter) -> None:
    async with open_stage() as stage:
        path = stage.frames.signer.archive_path(STUDY_ID, STUDY_REVISION, now=time.time()).path
        answer = await stage.http.get(path.replace("11111111", "11111112"))
    assert answer.status_code == 403
    assert orthanc.calls.call_count == 0


async def test_the_url_of_a_deleted_study_does_not_show_what_is_stored_later(
    orthanc: respx.MockRouter,
) -> None:
    orthanc.get(f"/studies/{STUDY_ID}/archive").respond(content=b"PK zip")
    async with open_stage() as stage:
        before = stage.frames.signer.archive_path(STUDY_ID, "00000000001", now=time.time()).path
        answer = await stage.http.get(before)
    assert answer.status_code == 404
    assert orthanc.calls.call_count == 0


class BreakingOff(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"PK half"
        raise httpx.ReadError("reset")


async def test_a_stream_that_breaks_never_ends_well(orthanc: respx.MockRouter) -> None:
    orthanc.get(f"/studies/{STUDY_ID}/archive").respond(stream=BreakingOff())
    sent: list[Message] = []
    async with open_stage() as stage:
        path = stage.frames.signer.archive_path(STUDY_ID, STUDY_REVISION, now=time.time()).path
        transport = stage.http._transport
        assert isinstance(transport, httpx.ASGITransport)
        with pytest.raises(Exception, match="Orthanc does not answer"):
            await transport.app(
                {
                    "type": "http",
                    "method": "GET",
                    "path": path,
                    "raw_path": path.encode(),
                    "query_string": b"",
                    "headers": [],
                },
                never,
                collect(sent),
            )
    assert [message.get("more_body") for message in sent] == [None, True]


async def never() -> Message:
    return {"type": "http.disconnect"}


def collect(sent: list[Message]) -> Send:
    async def send(message: Message) -> None:
        sent.append(message)

    return send


async def test_a_client_downloads_so_many_archives_at_once_and_then_others(
    orthanc: respx.MockRouter,
) -> None:
    waiting = asyncio.Event()

    class Held(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            await waiting.wait()
            yield b"PK zip"

    orthanc.get(f"/studies/{STUDY_ID}/archive").mock(
        side_effect=lambda _: httpx.Response(200, stream=Held())
    )
    async with open_stage() as stage:
        path = stage.frames.signer.archive_path(STUDY_ID, STUDY_REVISION, now=time.time()).path
        held = [asyncio.create_task(stage.http.get(path)) for _ in range(2)]
        while orthanc.calls.call_count < 2:  # noqa: ASYNC110  # respx tells nobody
            await asyncio.sleep(0)
        refused = await stage.http.get(path)
        waiting.set()
        answers = await asyncio.gather(*held)
        again = await stage.http.get(path)
    assert refused.status_code == 429
    assert refused.json()["code"] == "TOO_MANY_REQUESTS"
    assert refused.headers["retry-after"] == "2"
    assert [answer.status_code for answer in (*answers, again)] == [200, 200, 200]
