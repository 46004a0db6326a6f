"""Every example of docs/front-ends runs and prints what the page says."""

import asyncio
import json
import re
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest
from playwright.async_api import Browser, Page, Route, expect

import graph.app  # noqa: F401  # defines the errors that a request may end in
from graph.http.errors import status_of
from services import errors
from services.errors import Error, FileRejected
from services.frames.signing import FrameUrlSigner, load_or_create_keys
from tests.browser.conftest import sent_file
from tests.frontend.conftest import Workshop, new_image
from tests.frontend.examples import read_examples, text_of_pages
from tests.server_process import Served

_EXAMPLES = read_examples()
_COMMANDS = {".sh": "bash", ".mjs": "node", ".py": sys.executable}
_GUARDED = {"token.sh", "sign-in.mjs", "sign-in-of-clients.mjs"}
_WITH_EVENTS = {"events.mjs", "events-of-clients.mjs", "missed-events.mjs"}
_TYPED = "src/worklist.ts"
_RELAY = "relay/studies.js"
_OPEN = sorted(_EXAMPLES.outputs.keys() - _GUARDED - _WITH_EVENTS - {_TYPED, _RELAY})
_CODES_OF_COMMANDS = {
    "ADDRESS_UNAVAILABLE",
    "DATA_DIR_IN_USE",
    "EMBEDDED_STORE",
    "LEASE_LOST",
    "NOT_INSTALLED",
    "NOT_MIGRATED",
    "OPEN_SERVER_REFUSED",
    "PRIVATE_FILE_UNUSABLE",
    "START_FAILED",
    "TLS_FILES_UNUSABLE",
    "TOKENS_FILE",
    "WORKER_FAILED",
}
"""Errors that end a command or go to the log: no front end meets them."""
_CODES_WITHOUT_CLASS = {
    "GRAPHQL_PARSE_FAILED": "",
    "GRAPHQL_VALIDATION_FAILED": "",
    "METHOD_NOT_ALLOWED": "405",
    "MISDIRECTED_REQUEST": "421",
    "PERSISTED_QUERY_NOT_SUPPORTED": "",
}
"""What GraphQL and HTTP themselves refuse."""
_SETTINGS_OF_TOOLS = {"codegen.ts", "tsconfig.json", "relay.config.json"}
_TOOLS = "node_modules/.bin"

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
export const used = [speed, src, letters, useStack([]).src, useUpload().progress?.stored];
"""
"""Beside the examples: what the types of our package refuse."""


@pytest.mark.parametrize("name", _OPEN)
async def test_an_example_prints_what_the_page_says(name: str, workshop: Workshop) -> None:
    assert await _printed(workshop, name) == _EXAMPLES.outputs[name]


@pytest.mark.parametrize("name", sorted(_GUARDED))
async def test_an_example_signs_in_as_the_page_says(
    name: str, guarded_workshop: Workshop, guarded: tuple[Served, str]
) -> None:
    printed = await _printed(guarded_workshop, name, TOKEN=guarded[1])
    assert printed == _EXAMPLES.outputs[name]


async def test_without_its_token_an_example_is_refused(guarded_workshop: Workshop) -> None:
    printed = json.loads(await guarded_workshop.run("bash", "token.sh", TOKEN=""))
    assert printed["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


@pytest.mark.parametrize("name", sorted(_WITH_EVENTS))
async def test_an_example_is_told_of_a_new_study(
    name: str, workshop: Workshop, served: Served
) -> None:
    async with (
        workshop.started("node", name) as process,
        httpx.AsyncClient(base_url=served.url, timeout=30, trust_env=False) as http,
    ):
        told = asyncio.create_task(process.communicate())
        # Nobody says when a subscription has begun: studies come until it has told of one.
        while not told.done():
            sent = {"file": ("image.dcm", new_image())}
            (await http.post("/api/dicom/upload", files=sent)).raise_for_status()
            await asyncio.wait([told], timeout=0.5)
        output, complaints = await told
    assert (process.returncode, complaints.decode()) == (0, "")
    assert output.decode() == _EXAMPLES.outputs[name]


async def test_the_typed_examples_fit_schema_and_package_and_react_shows_them(
    project: Workshop, browser: Browser
) -> None:
    """All that is typed is one project: its types are checked once."""
    (project.folder / "src" / "consumer.ts").write_text(_CONSUMER, encoding="utf-8")
    await project.run(f"{_TOOLS}/graphql-codegen", "--silent")
    await project.run(f"{_TOOLS}/gql.tada", "generate-output")
    await project.run(f"{_TOOLS}/tsc")
    # Node takes ES modules from .js files where a package.json says so, as those of front ends do.
    (project.folder / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    assert await project.run("node", "built/worklist.js") == _EXAMPLES.outputs[_TYPED]

    named = new_image(PatientName="React^Rita", StudyDate="20300101")
    async with _bundled(project, browser, "src/main.tsx", '<div id="root"></div>') as page:
        await expect(page.locator("li")).to_have_count(5)
        await page.get_by_role("button", name="More").click()
        await expect(page.locator("li").nth(5)).to_be_visible()
        await page.locator("input").set_input_files([sent_file("rita.dcm", named)])
        progress = page.locator("p", has=page.locator("progress"))
        await expect(progress).to_have_text("1 of 1 files stored")
        row = page.locator("li", has_text="Rita React")
        await row.get_by_role("button", name="Rita React").click()
        picture = page.get_by_alt_text("Image 1 of 1")
        await expect(picture).to_have_js_property("naturalHeight", 128)
        await row.get_by_role("button", name="Delete").click()
        await expect(row).to_have_count(0)


async def test_vue_and_relay_show_what_the_pages_say(
    project: Workshop, browser: Browser, served: Served
) -> None:
    async with _bundled(project, browser, "vue/main.js", '<div id="app"></div>') as page:
        await page.get_by_label("Search").fill("thorax")
        await expect(page.locator("p")).to_have_text("1 studies")
        await expect(page.locator("li")).to_have_text("RG1 CompressedSamples 2004-08-26")
        await expect(page.locator("li img")).to_have_js_property("naturalHeight", 256)
    sent = {"file": ("image.dcm", new_image())}
    (await served.http.post("/api/dicom/upload", files=sent)).raise_for_status()
    await project.run(f"{_TOOLS}/relay-compiler")
    await project.run("node", "bundle.mjs", _RELAY, "built/relay.mjs", "node")
    assert await project.run("node", "built/relay.mjs") == _EXAMPLES.outputs[_RELAY]


async def test_an_img_renews_its_url_when_it_has_expired(
    workshop: Workshop, served: Served, browser: Browser
) -> None:
    expired: list[str] = []

    async def age_first_answer(route: Route) -> None:
        response = await route.fetch()
        answer = await response.json()
        if not expired:
            thumbnail = answer["data"]["studies"]["nodes"][0]["thumbnail"]
            thumbnail["url"] = _aged(thumbnail["url"], served)
            expired.append(thumbnail["url"])
        await route.fulfill(response=response, json=answer)

    answers: list[tuple[str, int]] = []
    # Another origin than the server's: a front end of one's own.
    with _web_server(workshop.folder) as origin:
        page = await browser.new_page()
        await page.route("**/graphql", age_first_answer)
        page.on("response", lambda answer: answers.append((answer.url, answer.status)))
        await page.goto(f"{origin}/frame.html")
        image = page.locator("#frame")
        await expect(image).to_have_js_property("naturalHeight", 256, timeout=30_000)
        source = await image.get_attribute("src")
        await expect(page.locator("#reason")).to_be_empty()
        await page.close()
    assert (expired[0], 410) in answers
    assert source not in expired


def test_every_example_is_run_here() -> None:
    of_pages = {name for name in _EXAMPLES.sources if name.startswith(("src/", "vue/"))}
    shown = {"frame.html"} | of_pages | _SETTINGS_OF_TOOLS
    assert _EXAMPLES.sources.keys() == _EXAMPLES.outputs.keys() | shown
    assert {Path(name).suffix for name in _OPEN} == _COMMANDS.keys()


def test_the_packages_that_the_page_names_are_those_that_are_tested() -> None:
    manifest = Path(__file__).with_name("package.json").read_text(encoding="utf-8")
    tested: dict[str, str] = json.loads(manifest)["devDependencies"]
    lines = re.findall(r"^npm install (?:--save-dev )?(.*)$", text_of_pages(), re.MULTILINE)
    named = {part for line in lines for part in line.split()} - {"orthanc-graphql-client"}
    assert named
    for part in named:
        name, _, major = part[1:].partition("@")
        assert tested[part[0] + name].startswith(major), part


def test_the_table_of_errors_has_every_code_with_its_status() -> None:
    kinds = [kind for kind in _errors_of(Error) if kind.code not in _CODES_OF_COMMANDS]
    expected = {kind.code: _told_status(kind) for kind in kinds} | _CODES_WITHOUT_CLASS
    rows = re.findall(r"^\| `(\w+)` \| ?(\d*) \|", _part("errors"), re.MULTILINE)
    assert dict(rows) == expected
    assert len(rows) == len(expected)


def test_the_table_of_refused_files_has_every_code() -> None:
    services = Path(errors.__file__).parent
    sources = [path.read_text(encoding="utf-8") for path in services.rglob("*.py")]
    raised = set(re.findall(r'FileRejected\(\s*"([A-Z_]+)"', "\n".join(sources)))
    rows = re.findall(r"^\| `(\w+)` \|", _part("rejections"), re.MULTILINE)
    assert sorted(rows) == sorted(raised)


async def _printed(workshop: Workshop, name: str, **environment: str) -> str:
    output = await workshop.run(_COMMANDS[Path(name).suffix], name, **environment)
    # curl prints the body as it came, without a line end.
    return output if output.endswith("\n") else f"{output}\n"


@asynccontextmanager
async def _bundled(
    project: Workshop, browser: Browser, entry: str, body: str
) -> AsyncIterator[Page]:
    """Open the page of an example, of another origin than the server's, that must not complain."""
    await project.run("node", str(_bundler(project)), entry, "bundle.js")
    script = '<script type="module" src="bundle.js"></script>'
    icon = '<link rel="icon" href="data:,">'
    text = f"<!doctype html><title>Example</title>{icon}{body}{script}"
    (project.folder / "index.html").write_text(text, encoding="utf-8")
    page = await browser.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.extend([said.text] if said.type == "error" else []))
    with _web_server(project.folder) as origin:
        await page.goto(f"{origin}/index.html")
        yield page
        await page.close()
    assert complaints == []


def _bundler(project: Workshop) -> Path:
    """Copy our bundler into a project, so that it finds the packages there."""
    return Path(shutil.copy(Path(__file__).with_name("bundle.mjs"), project.folder))


@contextmanager
def _web_server(folder: Path) -> Iterator[str]:
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _aged(url: str, served: Served) -> str:
    signer = FrameUrlSigner(load_or_create_keys(served.data_dir))
    signed = url.removeprefix(served.url)
    expires = int(signed.split("/")[3].split(".")[1], 16)
    reference = signer.verify_frame(signed.encode(), now=expires - 1)
    path = signer.frame_path(
        reference.instance_id,
        reference.revision,
        reference.frame_index,
        reference.variant,
        now=expires - 86_400,
    ).path
    return f"{served.url}{path}"


def _part(name: str) -> str:
    found = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", text_of_pages(), re.DOTALL)
    assert found is not None
    return found[1]


def _errors_of(parent: type[Error]) -> Iterator[type[Error]]:
    """Every error of the server with a code of its own; tests may have made others."""
    is_ours = parent.__module__.startswith(("graph.", "services."))
    if is_ours and "code" in vars(parent) and parent is not FileRejected:
        yield parent
    for kind in parent.__subclasses__():
        yield from _errors_of(kind)


def _told_status(kind: type[Error]) -> str:
    status = status_of(kind())
    if status == HTTPStatus.INTERNAL_SERVER_ERROR and kind is not Error:
        # It has no status of its own: it stands in results and subscriptions only.
        return ""
    return str(int(status))
