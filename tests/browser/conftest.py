"""A real browser on a real server: closed to every other host, and every console error counts."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.async_api import Browser, BrowserContext, Page, Route, ViewportSize, async_playwright
from pydantic import SecretStr

from services.embedded.data_dir import read_running_stores
from services.frames.keys import generate_key
from services.runtime import Runtime, open_runtime
from services.samples import store_samples
from services.settings import Settings
from tests.servers import RunningServer, run_server

_CHROMIUM = "/usr/bin/chromium"
_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
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


@pytest.fixture(scope="session")
async def samples_runtime(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runtime]:
    settings = Settings(_env_file=None, data_dir=tmp_path_factory.mktemp("browser"))
    async with open_runtime(settings) as runtime:
        await store_samples(runtime.ingest)
        yield runtime


@pytest.fixture(scope="session")
async def samples(samples_runtime: Runtime) -> AsyncIterator[RunningServer]:
    """A server with the sample studies, open to everybody."""
    async with run_server(samples_runtime.settings, samples_runtime) as running:
        yield running


@pytest.fixture
async def guarded(samples_runtime: Runtime, tmp_path: Path) -> AsyncIterator[RunningServer]:
    """A second server on the same stores that asks for tokens, from `tokens.json` in `tmp_path`."""
    running = await asyncio.to_thread(read_running_stores, samples_runtime.settings.data_dir)
    assert running is not None
    settings = Settings(
        _env_file=None,
        data_dir=tmp_path,
        mongodb_url=SecretStr(running.stores.mongodb_url or ""),
        orthanc_url=running.stores.orthanc_url,
        orthanc_username=running.stores.orthanc_username,
        orthanc_password=SecretStr(running.stores.orthanc_password),
        frame_url_keys=SecretStr(generate_key()),
    )
    async with open_runtime(settings) as runtime, run_server(settings, runtime) as server:
        yield server


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=_CHROMIUM, args=_FLAGS)
        yield chromium
        await chromium.close()


@pytest.fixture
async def tab(browser: Browser, samples: RunningServer) -> AsyncIterator[Tab]:
    async for opened in _open_tab(browser, samples):
        yield opened


@pytest.fixture
async def guarded_tab(browser: Browser, guarded: RunningServer) -> AsyncIterator[Tab]:
    async for opened in _open_tab(browser, guarded):
        yield opened


async def _open_tab(browser: Browser, server: RunningServer) -> AsyncIterator[Tab]:
    context = await browser.new_context(
        viewport=_WIDE, color_scheme="dark", reduced_motion="reduce", accept_downloads=True
    )
    page = await context.new_page()
    page.set_default_timeout(10_000)
    tab = Tab(page, context, f"{server.url}/")

    async def only_the_server(route: Route) -> None:
        if route.request.url.startswith((tab.url, "data:", "blob:")):
            await route.continue_()
        else:
            tab.foreign_requests.append(route.request.url)
            await route.abort()

    await context.route("**/*", only_the_server)
    page.on("pageerror", lambda error: tab.console_errors.append(str(error)))
    page.on(
        "console",
        lambda said: tab.console_errors.append(said.text) if said.type == "error" else None,
    )
    yield tab
    await context.close()
    tab.check()
