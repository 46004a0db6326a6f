from types import SimpleNamespace
from typing import cast

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from graph.authentication import principal_of, principal_of_connection_params
from services.auth.authenticator import Authenticator
from services.auth.roles import LOCAL_ADMIN, Principal, Role
from services.runtime import Runtime
from tests.tokens import cache_of, made_token, read_cache_of

ANN = Principal("ann", Role.UPLOADER)


@pytest.fixture
def open_one() -> Authenticator:
    return Authenticator(cache_of())


@pytest.fixture
def token() -> str:
    return made_token("ann", Role.UPLOADER)[1]


@pytest.fixture
async def closed_one() -> Authenticator:
    return Authenticator(await read_cache_of(made_token("ann", Role.UPLOADER)[0]))


def runtime_with(authenticator: Authenticator) -> Runtime:
    return cast("Runtime", SimpleNamespace(authenticator=authenticator))


def app_with(authenticator: Authenticator) -> ASGIApp:
    async def who(request: Request) -> JSONResponse:
        principal = await principal_of(request)
        return JSONResponse(principal and principal.name)

    app = Starlette(routes=[Route("/", who)])

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"runtime": runtime_with(authenticator)}
        await app(scope, receive, send)

    return with_state


async def answer(app: ASGIApp, headers: dict[str, str]) -> httpx.Response:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
        return await http.get("/", headers=headers)


async def test_the_header_identifies_a_request(closed_one: Authenticator, token: str) -> None:
    app = app_with(closed_one)
    assert (await answer(app, {"Authorization": f"Bearer {token}"})).json() == "ann"
    assert (await answer(app, {"Authorization": "Bearer ogql_wrong"})).json() is None
    assert (await answer(app, {})).json() is None


async def test_everybody_is_admin_of_an_open_server(open_one: Authenticator) -> None:
    assert (await answer(app_with(open_one), {})).json() == LOCAL_ADMIN.name


@pytest.mark.parametrize(
    "payload",
    [
        {"Authorization": "Bearer {}"},
        {"authorization": "bearer {}"},
        {"authToken": "{}"},
        {"authToken": "Bearer {}"},
        {"Authorization": None, "authToken": "{}"},
    ],
)
async def test_the_payload_identifies_a_websocket(
    closed_one: Authenticator, token: str, payload: dict[str, str | None]
) -> None:
    filled = {key: value and value.format(token) for key, value in payload.items()}
    assert await principal_of_connection_params(runtime_with(closed_one), filled) == ANN


@pytest.mark.parametrize(
    "payload", [{}, {"Authorization": 5}, {"authToken": ["x"]}, {"authToken": "ogql_x"}]
)
async def test_another_payload_identifies_nobody(
    closed_one: Authenticator, payload: dict[str, object]
) -> None:
    assert await principal_of_connection_params(runtime_with(closed_one), payload) is None
