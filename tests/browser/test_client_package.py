"""The npm package of clients/js: packed as for npm, typed, and used by React in Chromium."""

import asyncio
import json
import os
import re
import shutil
import tarfile
from asyncio.subprocess import PIPE
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, Route, expect

import graph.web
from tests.browser.conftest import Tab
from tests.patience import PATIENCE_SECONDS
from tests.server_process import Served

_REPOSITORY = Path(__file__).parents[2]
_PROGRAMS = _REPOSITORY / "tests/frontend/node_modules/.bin"
_REACT = Path(graph.web.__file__).parent / "node_modules"

pytestmark = pytest.mark.skipif(
    not (_PROGRAMS / "tsc").exists() or not _REACT.exists(),
    reason="the packages of the front-end tests are missing: make frontend web",
)

_CONSUMER = """
import {
  CineController, Connection, PictureLoader, StackController, geometry,
} from "orthanc-graphql-client";
import { useStack, useUpload } from "orthanc-graphql-client/react";

const connection = new Connection({ endpoint: "http://127.0.0.1/graphql", token: () => null });
const loader = new PictureLoader(connection, { maxBytes: 1_000_000 });
const stack = new StackController(loader);
stack.open([{ instanceId: "a", index: 0 }, null], 0, { center: 40, width: 400, format: "jpg" });
const cine: CineController = new CineController(stack);
const speed: number = cine.speed;
const ref = { instanceId: "a", index: 0 };
const src: Promise<string> = loader.load(ref).then((picture) => picture.src);
const letters: string = geometry.lettersOf([1, 0, 0]);
// @ts-expect-error  A position is a number.
stack.goTo("1");
// @ts-expect-error  There is no such format.
stack.setRendering({ format: "webp" });
export const used = [speed, src, letters, useStack([]).src, useUpload().progress?.isStoring];
"""

_PAGE = """<!doctype html><title>Client</title><div id="root"></div>
<script src="/client-test/react/umd/react.production.min.js"></script>
<script src="/client-test/react-dom/umd/react-dom.production.min.js"></script>
<script type="importmap">{"imports": {
  "react": "/client-test/react.js",
  "orthanc-graphql-client/react": "/client-test/package/src/react.js"
}}</script>
<script type="module">
  import { createElement } from "react";
  import { OrthancProvider, useOrthanc, useQuery, useStack } from "orthanc-graphql-client/react";
  const SERIES = `query Series($id: ID!) {
    node(id: $id) { ... on Series { instances { id } } }
  }`;
  const [series] = location.hash.slice(1).split("&");
  let frames = null;
  function Viewer() {
    window.stack = useStack(frames);
    window.client = useOrthanc();
    return createElement("img", { src: stack.src, "data-shown": stack.shown });
  }
  function Series() {
    const { data } = useQuery(SERIES, { id: series });
    frames ??= data?.node.instances.map(({ id }) => ({ instanceId: id, index: 0 })) ?? null;
    return frames ? createElement(Viewer) : null;
  }
  const endpoint = new URL("/graphql", location.href).href;
  ReactDOM.createRoot(document.getElementById("root")).render(
    createElement(OrthancProvider, { endpoint }, createElement(Series)),
  );
</script>"""

_SHIM = """export const {
  createContext, createElement, useCallback, useContext, useEffect, useMemo, useRef, useState,
} = window.React;"""

_WATCH = """() => {
  window.blank = 0;
  const look = () => {
    const image = document.querySelector("img");
    if (!image.naturalWidth) window.blank += 1;
    requestAnimationFrame(look);
  };
  look();
}"""


@pytest.fixture(scope="module")
async def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `package` of the packed npm package."""
    folder = tmp_path_factory.mktemp("client")
    for part in ("clients/js", "graph/web/static/client"):
        ignored = shutil.ignore_patterns("node_modules", "types", "*.tgz")
        shutil.copytree(_REPOSITORY / part, folder / part, ignore=ignored)
    await _run("npm", "pack", "--silent", "--offline", folder=folder / "clients/js")
    (packed,) = (folder / "clients/js").glob("*.tgz")
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package"


async def _run(*command: str, folder: Path) -> None:
    path = f"{_PROGRAMS}{os.pathsep}{os.environ['PATH']}"
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=os.environ | {"PATH": path}, stdout=PIPE, stderr=PIPE
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        output, complaints = await process.communicate()
    assert process.returncode == 0, (output + complaints).decode()


def test_the_package_has_its_modules_and_no_dependencies(package: Path) -> None:
    described = json.loads((package / "package.json").read_text("utf-8"))
    assert "dependencies" not in described
    ours = {path.name for path in (_REPOSITORY / "graph/web/static/client").iterdir()}
    assert {path.name for path in (package / "src").iterdir()} == ours | {"index.js", "react.js"}
    assert (package / "README.md").exists()
    for entry in described["exports"].values():
        assert (package / entry["types"]).exists()
        assert (package / entry["default"]).exists()


async def test_the_types_hold(package: Path, tmp_path: Path) -> None:
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules/orthanc-graphql-client").symlink_to(package)
    (tmp_path / "consumer.ts").write_text(_CONSUMER, encoding="utf-8")
    (tmp_path / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    options = ("--strict", "--noEmit", "--module", "NodeNext", "--target", "ES2022")
    await _run("tsc", *options, "--lib", "ES2023,DOM,DOM.Iterable", "consumer.ts", folder=tmp_path)


async def _serve_client(page: Page, package: Path) -> None:
    async def answer(route: Route) -> None:
        name = route.request.url.split("/client-test/")[1].split("#")[0]
        if name == "":
            await route.fulfill(body=_PAGE, content_type="text/html")
        elif name == "react.js":
            await route.fulfill(body=_SHIM, content_type="text/javascript")
        else:
            root = package.parent if name.startswith("package/") else _REACT
            content = await asyncio.to_thread((root / name).read_bytes)
            await route.fulfill(body=content, content_type="text/javascript")

    await page.route("**/client-test/**", answer)


async def test_a_stack_survives_the_end_of_its_urls_without_flicker(
    tab: Tab, samples: Served, package: Path
) -> None:
    found: Any = await samples.graphql(
        '{ studies(filter: {text: "Brain-MRA"}) { nodes { series { id numberOfInstances } } } }'
    )
    (series,) = found["studies"]["nodes"][0]["series"]
    renewals: list[int] = []

    async def shorten(route: Route) -> None:
        body = route.request.post_data_json or {}
        if "FrameUrls" not in body.get("query", ""):
            await route.fallback()
            return
        renewals.append(len(body["variables"]["refs"]))
        response = await route.fetch()
        answer = await response.json()
        if len(renewals) == 1:
            # Those that end in 20 s are not used any more.
            soon = (datetime.now(UTC) + timedelta(seconds=24)).isoformat()
            for frame in answer["data"]["frames"]:
                frame["urlExpiresAt"] = soon
        await route.fulfill(response=response, json=answer)

    page = tab.page
    await page.route("**/graphql", shorten)
    await _serve_client(page, package)
    await page.goto(f"{tab.url}client-test/#{series['id']}")
    image = page.locator("img")
    await expect(image).to_have_attribute("src", re.compile("^blob:"))
    await page.wait_for_load_state("networkidle")
    source = await image.get_attribute("src")
    await page.evaluate(_WATCH)
    assert renewals == [series["numberOfInstances"]]

    await page.wait_for_function("client.connection.serverNow() > performance.timeOrigin + 6000")
    await page.evaluate("stack.setSpeed(20)")  # Renders again.
    assert await image.get_attribute("src") == source

    await page.evaluate("stack.setRendering({ fullRange: true })")
    await expect(image).not_to_have_attribute("src", str(source))
    for position in range(series["numberOfInstances"]):
        await page.evaluate("position => stack.goTo(position)", position)
        await expect(image).to_have_attribute("data-shown", str(position))
    assert renewals == [series["numberOfInstances"]] * 2
    assert await page.evaluate("window.blank") == 0
