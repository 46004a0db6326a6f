import gzip
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from graph.http.compression import CompressionMiddleware

LONG = b'{"windowCenter": 40}' * 100
VERY_LONG = LONG * 200
"""Compressed in a thread."""


async def answer(request: Request) -> Response:
    size = int(request.query_params.get("size", len(LONG)))
    media_type = request.query_params.get("type", "application/json")
    return Response(VERY_LONG[:size], media_type=media_type)


async def stream(_: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        yield b"event: next\n\n"
        yield LONG

    return StreamingResponse(parts(), media_type="text/event-stream")


async def ask(path: str, accept: str | None = "gzip, deflate, br") -> httpx.Response:
    app = Starlette(
        routes=[Route("/", answer), Route("/stream", stream)],
        middleware=[Middleware(CompressionMiddleware)],
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
        request = http.build_request("GET", path)
        del request.headers["accept-encoding"]
        if accept is not None:
            request.headers["accept-encoding"] = accept
        response = await http.send(request, stream=True)
        raw = b"".join([part async for part in response.aiter_raw()])
        response._content = raw
        return response


@pytest.mark.parametrize("body", [LONG, VERY_LONG])
@pytest.mark.parametrize(
    "media_type",
    ["application/json", "application/dicom+json", "text/html", "application/problem+json"],
)
async def test_text_over_a_kilobyte_is_compressed(body: bytes, media_type: str) -> None:
    answered = await ask(f"/?size={len(body)}&type={media_type.replace('+', '%2B')}")
    assert answered.headers["content-encoding"] == "gzip"
    assert answered.headers["vary"] == "Accept-Encoding"
    assert answered.headers["content-length"] == str(len(answered.content))
    assert gzip.decompress(answered.content) == body


@pytest.mark.parametrize("accept", [None, "", "identity", "br", "gzip;q=0", "gzip; q=0.000, br"])
async def test_who_does_not_accept_gzip_gets_none(accept: str | None) -> None:
    answered = await ask("/", accept)
    assert "content-encoding" not in answered.headers
    assert answered.headers["vary"] == "Accept-Encoding"
    assert answered.content == LONG


@pytest.mark.parametrize(
    "path",
    [
        "/?size=1023",
        "/?type=image/png",
        "/?type=image/jpeg",
        "/?type=application/dicom",
        "/?type=application/zip",
        "/?type=multipart/related;%20boundary=x",
        "/?type=application/octet-stream",
        "/stream",
    ],
)
async def test_short_answers_pictures_and_streams_are_not_compressed(path: str) -> None:
    assert "content-encoding" not in (await ask(path)).headers
