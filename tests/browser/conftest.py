"""A real browser on a real server: closed to every other host, and every console error counts."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import (
    Browser,
    BrowserContext,
    FilePayload,
    Page,
    Request,
    ViewportSize,
    async_playwright,
)
from pydicom.data import get_testdata_file

from services.access import Role
from services.credentials.token_file import changed_tokens
from services.credentials.tokens import issue_token
from services.embedded.data_dir import read_running_stores
from services.frames.keys import generate_key

_CHROMIUM = "/usr/bin/chromium"
_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    # No name leads anywhere: whoever is asked for shows up as a failure too.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]
_CT_STUDY = "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322"
"""StudyInstanceUID of pydicom's CT_small.dcm."""
_WIDE: ViewportSize = {"width": 1280, "height": 800}


@dataclass
class Tab:
    """A page of its own session.

    Attributes:
        url: Of the server, with a slash at the end.
        expected_errors: Parts of console messages that belong to what the test does.
    """

    page: Page
    context: BrowserContext
    url: str
    console_errors: list[str] = field(default_factory=list)
    foreign_requests: list[str] = field(default_factory=list)
    expected_errors: list[str] = field(default_factory=list)

    async def open(self, address: str = "") -> Page:
        """Go to an address below the server's and answer the page."""
        await self.page.goto(self.url + address)
        return self.page

    def check(self) -> None:
        """Fail when the page said something wrong or asked somebody else."""
        unexpected = [
            text
            for text in self.console_errors
            if not any(part in text for part in self.expected_errors)
        ]
        assert (unexpected, self.foreign_requests) == ([], [])


def sent_file(name: str, content: bytes) -> FilePayload:
    """Make what a person chooses in the file dialog."""
    return {"name": name, "mimeType": "application/octet-stream", "buffer": content}


@dataclass(frozen=True, slots=True)
class Served:
    """A server in a process of its own, as people run it.

    Attributes:
        url: Without a slash at the end.
        data_dir: Of its embedded stores and keys.
    """

    url: str
    data_dir: Path
    http: httpx.AsyncClient

    async def graphql(self, query: str, **variables: object) -> dict[str, object]:
        """Execute an operation that must succeed; answers its data."""
        response = await self.http.post("/graphql", json={"query": query, "variables": variables})
        body = response.json()
        assert "errors" not in body, body
        data: dict[str, object] = body["data"]
        return data


@pytest.fixture(scope="session")
async def samples(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A server with its own stores, which hold the sample studies; open to everybody."""
    async with _serve(tmp_path_factory.mktemp("samples")) as served:
        yield served


@pytest.fixture
async def without_ct(samples: Served) -> AsyncIterator[bytes]:
    """The bytes of a CT file that is not stored, and is not after the test, under any patient."""
    path = get_testdata_file("CT_small.dcm", download=False)
    assert isinstance(path, str)
    yield await asyncio.to_thread(Path(path).read_bytes)
    found: dict[str, Any] = await samples.graphql(
        "query ($uids: [String!]) { studies(filter: {studyInstanceUIDs: $uids}) { nodes { id } } }",
        uids=[_CT_STUDY],
    )
    for study in found["studies"]["nodes"]:
        await samples.graphql(
            "mutation ($id: ID!) { deleteStudy(id: $id) { deletedInstances } }", id=study["id"]
        )


@pytest.fixture(scope="session")
async def guarded(
    samples: Served, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Served, str]]:
    """A second server on the same stores that asks for tokens, and a viewer's token."""
    data_dir = tmp_path_factory.mktemp("guarded")
    running = await asyncio.to_thread(read_running_stores, samples.data_dir)
    assert running is not None
    with changed_tokens(data_dir / "tokens.json") as change:
        change.tokens, token = issue_token(
            change.tokens, name="reader", role=Role.VIEWER, now=datetime.now(UTC)
        )
    stores = running.stores
    environment = {
        "MONGODB_URL": stores.mongodb_url or "",
        "ORTHANC_URL": stores.orthanc_url or "",
        "ORTHANC_USERNAME": stores.orthanc_username,
        "ORTHANC_PASSWORD": stores.orthanc_password,
        "FRAME_URL_KEYS": generate_key(),
    }
    async with _serve(data_dir, environment) as served:
        yield served, token


@asynccontextmanager
async def _serve(
    data_dir: Path, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Served]:
    with (data_dir / "serve.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).parent / "orthanc-graphql",
            *("serve", "--port", "0", "--data-dir", data_dir),
            cwd=data_dir,
            env={"PATH": os.environ["PATH"], **(environment or {})},
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
    try:
        url = await _announced_url(process, data_dir / "serve.log")
        async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as http:
            yield Served(url, data_dir, http)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await process.communicate()


async def _announced_url(process: asyncio.subprocess.Process, log: Path) -> str:
    assert process.stdout is not None
    async for line in process.stdout:
        if b"Study browser" in line:
            return line.split()[-1].decode().rstrip("/")
    pytest.fail(await asyncio.to_thread(log.read_text))


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=_CHROMIUM, args=_FLAGS)
        yield chromium
        await chromium.close()


@pytest.fixture
async def tab(browser: Browser, samples: Served) -> AsyncIterator[Tab]:
    async with _open_tab(browser, samples) as opened:
        yield opened


@pytest.fixture
async def guarded_tab(
    browser: Browser, guarded: tuple[Served, str]
) -> AsyncIterator[tuple[Tab, str]]:
    """A page of the server that asks for tokens, and a viewer's token."""
    served, token = guarded
    async with _open_tab(browser, served) as opened:
        # Being refused is what these tests are about; browsers write it to their console.
        opened.expected_errors += ["401", "403"]
        yield opened, token


@asynccontextmanager
async def _open_tab(browser: Browser, server: Served) -> AsyncIterator[Tab]:
    context = await browser.new_context(
        viewport=_WIDE, color_scheme="dark", reduced_motion="reduce", accept_downloads=True
    )
    page = await context.new_page()
    page.set_default_timeout(10_000)
    tab = Tab(page, context, f"{server.url}/")

    def note_foreign(request: Request) -> None:
        if not request.url.startswith((tab.url, "data:", "blob:")):
            tab.foreign_requests.append(request.url)

    context.on("request", note_foreign)
    page.on("pageerror", lambda error: tab.console_errors.append(str(error)))
    page.on(
        "console",
        lambda said: tab.console_errors.append(said.text) if said.type == "error" else None,
    )
    yield tab
    await context.close()
    tab.check()
