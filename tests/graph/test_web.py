import re
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import httpx
import pytest
from click.testing import CliRunner
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from graph import graphiql
from graph.commands import simple
from graph.routes import web
from graph.web.assets import GRAPHIQL_FILES, graphiql_bundle, page_bundle
from graph.web.security import content_security_policy
from services.embedded.data_dir import (
    RunningStores,
    Stores,
    lock_data_dir,
    write_running_stores,
)

_WEB = Path(web.__file__).parents[1] / "web"
_needs_npm = pytest.mark.skipif(
    not (_WEB / "node_modules").is_dir(), reason="GraphiQL's files are not installed: no npm here"
)


def _settings(**values: object) -> SimpleNamespace:
    return SimpleNamespace(**({"public_url": None} | values))


async def _get(path: str, **settings: object) -> httpx.Response:
    app = Starlette(routes=web.routes)
    runtime = SimpleNamespace(settings=_settings(**settings))

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"runtime": runtime}
        await app(scope, receive, send)

    transport = httpx.ASGITransport(app=with_state)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        return await http.get(path)


def _request(**settings: object) -> Request:
    state = {"runtime": SimpleNamespace(settings=_settings(**settings))}
    return Request({"type": "http", "headers": [], "state": state})


async def test_the_page_names_its_files_by_digest_and_is_asked_for_each_time() -> None:
    response = await _get("/")
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-cache"
    assert "{static}" not in response.text
    names = re.findall(r'(?:src|href)="(static/[^"]+)"', response.text)
    assert len(names) >= 8
    for name in names:
        assert (await _get(f"/{name}")).status_code == 200


async def test_the_page_may_run_no_inline_script_and_ask_nobody_else() -> None:
    response = await _get("/", public_url="https://pacs.example.org/orthanc")
    assert response.headers["content-security-policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; "
        "img-src 'self' data: blob: https://pacs.example.org; "
        "connect-src 'self' https://pacs.example.org; frame-src 'self' https://pacs.example.org; "
        "media-src 'self' https://pacs.example.org; "
        "font-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


async def test_files_are_kept_for_good_under_their_digest() -> None:
    response = await _get(f"/static/{page_bundle().digest}/app.js")
    assert response.headers["content-type"] == "text/javascript; charset=utf-8"
    assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert response.content == (_WEB / "static/app.js").read_bytes()


async def test_files_of_another_version_are_answered_and_not_kept() -> None:
    response = await _get("/static/0000000000000000/app.js")
    assert (response.status_code, response.headers["cache-control"]) == (200, "no-store")


@pytest.mark.parametrize("name", ["none.js", "..%2Findex.html", "%2Fetc%2Fpasswd", "app.js/", ""])
async def test_nothing_but_the_files_can_be_asked_for(name: str) -> None:
    assert (await _get(f"/static/{page_bundle().digest}/{name}")).status_code == 404
    assert (await _get(f"/graphiql/{page_bundle().digest}/{name}")).status_code == 404


async def test_the_names_of_elements_come_with_the_page() -> None:
    response = await _get(f"/static/{page_bundle().digest}/element-names.json")
    names = response.json()
    assert names["00100010"] == "Patient's Name"
    assert names["60XX3000"] == "Overlay Data"


def test_no_module_turns_data_into_html_or_code() -> None:
    forbidden = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b")
    modules = list((_WEB / "static").rglob("*.js"))
    assert modules
    assert [path.name for path in modules if forbidden.search(path.read_text("utf-8"))] == []


def test_every_module_stays_readable() -> None:
    files = [*(_WEB / "static").rglob("*.js"), *(_WEB / "static").rglob("*.css")]
    lengths = {path.name: len(path.read_text("utf-8").splitlines()) for path in files}
    assert {name: length for name, length in lengths.items() if length > 250} == {}


@_needs_npm
def test_graphiql_comes_from_this_server() -> None:
    bundle = graphiql_bundle()
    assert bundle is not None
    page = graphiql.graphiql_page()
    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert [source for source in sources if "//" in source] == []
    for name in GRAPHIQL_FILES:
        assert f"graphiql/{bundle.digest}/{name}" in page


@pytest.fixture
def without_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphiql, "graphiql_bundle", lambda: None)


@pytest.mark.usefixtures("without_files")
def test_without_its_files_graphiql_says_what_to_do() -> None:
    page = graphiql.graphiql_page()
    assert "make setup" in page
    assert "<script" not in page
    assert "unpkg" not in graphiql.graphiql_headers(_request())["Content-Security-Policy"]


def test_scripts_come_from_this_server_and_are_never_inline() -> None:
    for inline_styles in (False, True):
        policy = content_security_policy(with_inline_styles=inline_styles)
        assert policy.split("; ")[1] == "script-src 'self'"
        assert "unpkg" not in policy


def test_open_tells_the_address_of_the_running_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Mock(return_value=True)
    monkeypatch.delenv("PUBLIC_URL", raising=False)
    monkeypatch.setattr("webbrowser.open", opened)
    address = "http://127.0.0.1:8000"
    with lock_data_dir(tmp_path, address=address):
        write_running_stores(tmp_path, RunningStores(pid=1, address=address, stores=Stores()))
        result = CliRunner().invoke(simple.open_, ["--data-dir", str(tmp_path)])
    assert (result.exit_code, result.output) == (0, f"{address}/\n")
    opened.assert_called_once_with(f"{address}/")


def test_open_without_a_server_says_how_to_start_one(tmp_path: Path) -> None:
    result = CliRunner().invoke(simple.open_, ["--data-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert "orthanc-graphql serve" in result.output
