"""The npm package of clients/js: packed as for npm, and used by React in Chromium."""

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from playwright.async_api import Page, Route, expect

import graph.web
from tests.browser.conftest import Tab
from tests.server_process import Served

_REPOSITORY = Path(__file__).parents[2]
_REACT = Path(graph.web.__file__).parent / "node_modules"

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


def test_the_package_has_its_modules_and_no_dependencies(client_package: Path) -> None:
    described = json.loads((client_package / "package.json").read_text("utf-8"))
    assert "dependencies" not in described
    ours = {path.name for path in (_REPOSITORY / "graph/web/static/client").iterdir()}
    assert {path.name for path in (client_package / "src").iterdir()} == ours | {
        "index.js",
        "react.js",
    }
    assert (client_package / "README.md").exists()
    for entry in described["exports"].values():
        assert (client_package / entry["types"]).exists()
        assert (client_package / entry["default"]).exists()


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
    tab: Tab, served: Served, client_package: Path
) -> None:
    found: Any = await served.graphql(
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
    await _serve_client(page, client_package)
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
