"""What surrounds every answer, by whole headers: a route that is made faster keeps them."""

import logging
import re
import time
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import httpx
import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graph.app import create_app
from graph.http.cors import EXPOSED_HEADERS
from graph.http.endpoint import GraphQLEndpoint
from graph.http.middleware import RequestContextMiddleware
from graph.state import client_address, correlation_id
from services.audit import Audit
from services.frames.cache import FrameKey, RenderedFrame
from services.frames.encoding import encode_png
from services.frames.service import open_frames
from services.frames.signing import FrameUrlKeys, FrameUrlSigner
from services.frames.variant import FrameVariant
from services.settings import Settings
from tests.graph.problems import problem_of
from tests.graph.routes.stage import INSTANCE_ID, REVISION, IndexedInstance, NoCrashes

FRAME = RenderedFrame.of(encode_png(np.zeros((2, 3), np.uint8)))
ID = re.compile(r"[0-9a-f]{16}")
LOCAL, FOREIGN = "http://localhost:3000", "http://evil.test"


@asynccontextmanager
async def running(**given: Any) -> AsyncIterator[tuple[httpx.AsyncClient, str]]:  # settings
    """The whole application with one frame in memory; a client and the frame's address."""
    settings = Settings(_env_file=None, **given)
    signer = FrameUrlSigner(FrameUrlKeys((("k1", bytes(range(32))),)))
    async with open_frames(
        signer, None, None, find=_find, following=_following, records=NoCrashes()
    ) as frames:
        await frames._cache.get(FrameKey(INSTANCE_ID, REVISION, 0, FrameVariant()), _render)
        runtime = SimpleNamespace(
            frames=frames,
            settings=settings,
            audit=AsyncMock(spec=Audit),
            authenticator=SimpleNamespace(is_open=True),
            readiness=SimpleNamespace(is_stopping=False),
        )
        app = _with_state(create_app(settings, runtime=runtime), runtime)  # type: ignore[arg-type]  # all that is asked
        address = signer.frame_path(INSTANCE_ID, REVISION, 0, now=time.time()).path
        async with _client(app) as http:
            yield http, address


async def _find(_: str) -> IndexedInstance:
    return IndexedInstance()


async def _following(_: object, __: int) -> list[IndexedInstance]:
    return []


async def _render() -> RenderedFrame:
    return FRAME


def _with_state(app: ASGIApp, runtime: object) -> ASGIApp:
    async def stated(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"runtime": runtime}
        await app(scope, receive, send)

    return stated


def _client(app: ASGIApp) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")


def headers_of(response: httpx.Response) -> dict[str, str]:
    """All headers, each once, without the id, which is checked here."""
    found = list(response.headers.multi_items())
    headers = dict(found)
    assert len(found) == len(headers)
    assert ID.fullmatch(headers.pop("x-request-id"))
    return headers


PICTURE = {
    "etag": FRAME.etag,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "cross-origin",
    "x-frame-options": "DENY",
    "vary": "Origin",
}
CONTENT = {"content-type": "image/png", "content-length": str(len(FRAME.content))}
EXPOSED = {"access-control-expose-headers": ", ".join(EXPOSED_HEADERS)}
SHARED = EXPOSED | {"access-control-allow-origin": LOCAL}
SAFE = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
}


def without_age(headers: dict[str, str]) -> dict[str, str]:
    assert re.fullmatch(r"private, max-age=\d+, immutable", headers.pop("cache-control"))
    return headers


@pytest.mark.parametrize(
    ("origin", "shared"),
    [(None, {}), (LOCAL, SHARED), (FOREIGN, EXPOSED)],
    ids=["of the same origin", "of an allowed origin", "of a foreign origin"],
)
async def test_a_picture_has_exactly_these_headers(
    origin: str | None, shared: dict[str, str]
) -> None:
    sent = {"Origin": origin} if origin else {}
    async with running() as (http, address):
        found = await http.get(address, headers=sent)
        head = await http.head(address, headers=sent)
        known = await http.get(address, headers=sent | {"If-None-Match": FRAME.etag})
    assert without_age(headers_of(found)) == PICTURE | CONTENT | shared
    assert without_age(headers_of(head)) == PICTURE | CONTENT | shared
    assert without_age(headers_of(known)) == PICTURE | shared
    assert (found.status_code, head.status_code, known.status_code) == (200, 200, 304)
    assert (found.content, head.content, known.content) == (FRAME.content, b"", b"")


async def test_a_server_for_all_origins_says_so() -> None:
    async with running(cors_allowed_origins="*") as (http, address):
        found = await http.get(address, headers={"Origin": FOREIGN})
        plain = await http.get(address)
    exposed = SHARED | {"access-control-allow-origin": "*"}
    assert without_age(headers_of(found)) == PICTURE | CONTENT | exposed
    assert without_age(headers_of(plain)) == PICTURE | CONTENT


async def test_the_policy_of_resources_is_as_set() -> None:
    async with running(frame_cross_origin_resource_policy="same-site") as (http, address):
        found = await http.get(address)
    assert found.headers["cross-origin-resource-policy"] == "same-site"


async def test_a_refusal_and_a_missing_page_have_exactly_these_headers() -> None:
    async with running() as (http, address):
        forged = await http.get(address + "?a=b")
        missing = await http.get("/nowhere")
        posted = await http.post(address)
    refused = SAFE | {
        "cache-control": "no-store",
        "content-type": "application/problem+json",
        "vary": "Origin",
    }
    assert headers_of(forged) == refused | {"content-length": str(len(forged.content))}
    assert headers_of(missing) == refused | {"content-length": str(len(missing.content))}
    allowed = headers_of(posted)
    assert {*allowed.pop("allow").split(", ")} == {"GET", "HEAD"}
    assert allowed == refused | {"content-length": str(len(posted.content))}
    assert (forged.status_code, missing.status_code, posted.status_code) == (403, 404, 405)


async def test_a_preflight_is_answered_for_allowed_origins_alone() -> None:
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    async with running() as (http, address):
        allowed = await http.options(address, headers=asked | {"Origin": LOCAL})
        foreign = await http.options(address, headers=asked | {"Origin": FOREIGN})
        no_preflight = await http.options(address)
    assert (allowed.status_code, foreign.status_code, no_preflight.status_code) == (200, 400, 405)
    assert allowed.headers["access-control-allow-origin"] == LOCAL
    assert allowed.headers["access-control-max-age"] == "600"
    assert "access-control-allow-origin" not in foreign.headers
    assert foreign.text == "Disallowed CORS origin"


@pytest.mark.parametrize(
    "headers",
    [
        "apollographql-client-name,apollographql-client-version,content-type",
        "graphql-preflight",
        "if-none-match",
    ],
)
async def test_pages_of_allowed_origins_may_send_what_clients_of_graphql_send(
    headers: str,
) -> None:
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": headers,
        "Origin": LOCAL,
    }
    async with running() as (http, _):
        answer = await http.options("/graphql", headers=asked)
    assert (answer.status_code, answer.text) == (200, "OK")


async def test_a_foreign_host_has_exactly_these_headers() -> None:
    async with running() as (http, address):
        refused = await http.get(address, headers={"Host": "evil.test", "Origin": LOCAL})
    assert refused.status_code == 421
    assert headers_of(refused) == SAFE | {
        "cache-control": "no-store",
        "content-length": str(len(refused.content)),
        "content-type": "application/problem+json",
    }


async def answer(request: Request) -> Response:
    """Say who it is that is answered; set a header that is set for everybody."""
    text = f"{correlation_id.get()} {client_address.get()}"
    if request.url.path == "/broken":
        raise RuntimeError("Zyxwvut^Canary")
    return PlainTextResponse(text, headers={"X-Frame-Options": "SAMEORIGIN", "Vary": "Accept"})


async def half(_: Request) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"half"
        raise RuntimeError("the rest is lost")

    return StreamingResponse(chunks())


def scoped() -> ASGIApp:
    routes = [Route("/half", half), Route("/{name}", answer)]
    return Starlette(routes=routes, middleware=[Middleware(RequestContextMiddleware)])


async def test_a_request_has_its_own_id_and_address_and_a_route_its_own_headers() -> None:
    async with _client(scoped()) as http:
        responses = [await http.get("/a") for _ in range(2)]
    ids = [response.headers["x-request-id"] for response in responses]
    assert len(set(ids)) == 2
    assert [response.text for response in responses] == [f"{one} 127.0.0.1" for one in ids]
    assert headers_of(responses[0])["x-frame-options"] == "SAMEORIGIN"
    assert (correlation_id.get(), client_address.get()) == ("-", None)


async def test_the_log_names_the_template_the_status_and_the_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, logger="orthanc_graphql.access"):
        async with _client(scoped()) as http:
            await http.get("/Zyxwvut")
            await http.delete("/a/b/c")
    said = [re.sub(r"\d+\.\d ms$", "T ms", record.getMessage()) for record in caplog.records]
    assert said == ["GET /{name} 200 T ms", "DELETE (no route) 404 T ms"]


async def test_the_log_names_the_template_of_pictures_and_of_refused_ones(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, logger="orthanc_graphql.access"):
        async with running() as (http, address):
            for method in ("GET", "HEAD", "POST"):
                await http.request(method, address)
            await http.get(address + "x")
    said = [record.getMessage().rsplit(" ", 2)[0] for record in caplog.records]
    template = "/frames/v2/{signed:path}"
    assert said == [f"{asked} {template} {status}" for asked, status in (
        ("GET", 200), ("HEAD", 200), ("POST", 405), ("GET", 403)
    )]  # fmt: skip


async def test_an_unexpected_error_is_masked_and_logged_under_its_id(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, logger="orthanc_graphql.access"):
        async with _client(scoped()) as http:
            response = await http.get("/broken")
    message = "Something went wrong in the server."
    assert problem_of(response) == (500, "INTERNAL_ERROR", message)
    assert headers_of(response) == SAFE | {
        "cache-control": "no-store",
        "content-length": str(len(response.content)),
        "content-type": "application/problem+json",
    }
    first, second = caplog.records
    assert (first.getMessage(), first.exc_info is None) == ("unexpected error", False)
    assert second.getMessage().startswith("GET /{name} 500 ")


@pytest.mark.parametrize(("origin", "shared"), [(LOCAL, SHARED), (FOREIGN, EXPOSED)])
async def test_pages_of_allowed_origins_may_read_which_unexpected_error_it_was(
    origin: str, shared: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("it broke")

    monkeypatch.setattr(GraphQLEndpoint, "run", broken)
    async with running() as (http, _):
        response = await http.get("/graphql", headers={"Origin": origin})
    [error] = response.json()["errors"]
    reference = response.headers["x-request-id"]
    assert error == {
        "message": "Something went wrong in the server.",
        "extensions": {"code": "INTERNAL_ERROR", "correlationId": reference},
    }
    assert response.status_code == 500
    assert headers_of(response) == SAFE | shared | {
        "cache-control": "no-store",
        "content-length": str(len(response.content)),
        "content-type": "application/json",
        "vary": "Origin",
    }


async def test_an_error_after_the_first_byte_breaks_the_answer() -> None:
    with pytest.raises(RuntimeError, match="the rest is lost"):
        await _http(scoped(), "/half")


async def _http(app: ASGIApp, path: str) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: MutableMapping[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": b"",
        "headers": [],
        "client": None,
    }
    await app(scope, receive, send)
    return sent


@pytest.mark.parametrize(
    ("sent", "status"),
    [(["accept"], 101), (["accept", "close"], 101), (["close"], 403), ([], 500)],
)
async def test_a_websocket_is_logged_as_one(
    caplog: pytest.LogCaptureFixture, sent: list[str], status: int
) -> None:
    async def socket(_: Scope, __: Receive, send: Send) -> None:
        for kind in sent:
            await send({"type": f"websocket.{kind}"})

    async def ignore(_: Message) -> None:
        return

    with caplog.at_level(logging.INFO, logger="orthanc_graphql.access"):
        scope = {"type": "websocket", "headers": [], "client": ("::1", 5)}
        await RequestContextMiddleware(socket)(scope, _nothing, ignore)
    assert re.fullmatch(
        rf"WEBSOCKET \(no route\) {status} \d+\.\d ms", caplog.records[0].getMessage()
    )


async def _nothing() -> Message:
    return {"type": "websocket.connect"}
