"""The list and the server's events: nothing that came is left out, whatever happens meanwhile."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from playwright.async_api import Request, Route, WebSocketRoute, expect

from tests.browser.conftest import Tab
from tests.patience import PATIENCE_SECONDS
from tests.server_process import Served

_LIVE = "#live"
_ROWS = "#studies tr"


async def _upload(samples: Served, content: bytes) -> None:
    response = await samples.http.post("/api/dicom/upload", files={"file": ("ct.dcm", content)})
    assert response.status_code == 200, response.text


async def _worklist_with(tab: Tab, **constants: int) -> None:
    async def change(route: Route) -> None:
        response = await route.fetch()
        lines = (await response.text()).splitlines()
        for name, value in constants.items():
            (at,) = [i for i, line in enumerate(lines) if line.startswith(f"const {name} = ")]
            lines[at] = f"const {name} = {value};"
        await route.fulfill(response=response, body="\n".join(lines))

    await tab.page.route("**/worklist.js", change)


async def test_the_list_is_asked_for_once(tab: Tab) -> None:
    await _worklist_with(tab, EVENTS_PAUSE=1)
    asked: list[Any] = []

    def note(request: Request) -> None:
        if "query Worklist" in (request.post_data or ""):
            asked.append(json.loads(request.post_data or "")["variables"]["filter"])

    def tell_nothing(socket: WebSocketRoute) -> None:
        def answer(message: str | bytes) -> None:
            if "connection_init" in str(message):
                socket.send('{"type": "connection_ack"}')

        socket.on_message(answer)

    tab.page.on("request", note)
    await tab.page.route_web_socket("**/graphql", tell_nothing)
    page = await tab.open()
    await expect(page.locator(_LIVE)).to_have_text("Live")
    await expect(page.locator(_ROWS, has_text="RG1")).to_be_visible()
    await page.locator("#search").fill("shoul")
    await expect(page.locator(_ROWS)).to_have_count(1)
    assert asked == [{}, {"text": "shoul"}]


async def test_what_comes_between_the_list_and_its_events_is_not_missed(
    tab: Tab, without_ct: bytes, samples: Served
) -> None:
    may_connect = asyncio.Event()

    def hold(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()

        async def pass_on(message: str | bytes) -> None:
            await may_connect.wait()
            server.send(message)

        socket.on_message(pass_on)

    await tab.page.route_web_socket("**/graphql", hold)
    page = await tab.open("#q=1CT1")
    await expect(page.get_by_text("No study matches these filters.")).to_be_visible()
    await _upload(samples, without_ct)
    may_connect.set()
    await expect(page.locator(_ROWS)).to_have_count(1)


async def test_an_event_during_a_request_is_looked_after_later(
    tab: Tab, without_ct: bytes, samples: Served
) -> None:
    await _worklist_with(tab, EVENTS_PAUSE=1)
    told = asyncio.Event()
    answered, release = asyncio.Event(), asyncio.Event()

    def pass_one_event_on(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()

        def answer(message: str | bytes) -> None:
            if '"next"' not in str(message):
                socket.send(message)
            elif answered.is_set() and not told.is_set():
                socket.send(message)
                told.set()

        server.on_message(answer)

    async def hold(route: Route) -> None:
        if not answered.is_set():
            response = await route.fetch()
            answered.set()
            await release.wait()
            await route.fulfill(response=response)
            return
        await route.fallback()

    await tab.page.route_web_socket("**/graphql", pass_one_event_on)
    page = await tab.open("#q=nobody")
    await expect(page.locator(_LIVE)).to_have_text("Live")
    await page.wait_for_load_state("networkidle")
    await page.route("**/graphql", hold)
    await page.locator("#search").fill("1CT1")
    await asyncio.wait_for(answered.wait(), PATIENCE_SECONDS)
    await _upload(samples, without_ct)
    await asyncio.wait_for(told.wait(), PATIENCE_SECONDS)
    await page.wait_for_timeout(300)  # The look that the event asks for comes to nothing now.
    release.set()
    await expect(page.locator(_ROWS)).to_have_count(1)


async def test_a_list_behind_a_study_asks_nothing_until_it_is_shown(
    tab: Tab, without_ct: bytes, samples: Served
) -> None:
    await _worklist_with(tab, EVENTS_PAUSE=1)
    told = asyncio.Event()
    asked: list[str] = []

    def note_event(message: str | bytes) -> None:
        if '"next"' in str(message):
            told.set()

    tab.page.on("websocket", lambda socket: socket.on("framereceived", note_event))
    page = await tab.open()
    await expect(page.locator(_LIVE)).to_have_text("Live")
    await page.locator("#studies a", has_text="RG1").click()
    await expect(page.locator(".image")).to_be_visible()
    await page.wait_for_load_state("networkidle")
    page.on("request", lambda request: asked.append(request.post_data or ""))
    await _upload(samples, without_ct)
    await asyncio.wait_for(told.wait(), PATIENCE_SECONDS)
    await page.wait_for_timeout(300)  # The look that the event asks for waits as well.
    assert not any("query Worklist" in one for one in asked)
    await page.keyboard.press("Escape")
    await expect(page.locator(_ROWS, has_text="CT1 CompressedSamples")).to_have_class("arrived")


async def test_a_list_too_long_to_ask_for_again_offers_its_beginning(
    tab: Tab, without_ct: bytes, samples: Served
) -> None:
    await _worklist_with(tab, PAGE=3, MOST=4, EVENTS_PAUSE=1)
    page = await tab.open()
    await expect(page.locator(_ROWS, has_text="OFFIS Structured Reporting")).to_be_attached()
    await expect(page.locator(_LIVE)).to_have_text("Live")
    await _upload(samples, without_ct)
    await page.locator("#news").get_by_role("button").click()
    await expect(page.locator(_ROWS, has_text="CT1 CompressedSamples")).to_be_visible()


def _ending_first(ending: dict[str, object], again: asyncio.Event) -> Callable[..., None]:
    """End the first subscription by a message; `again` tells of a second connection."""
    sockets: list[WebSocketRoute] = []

    def connect(socket: WebSocketRoute) -> None:
        sockets.append(socket)
        server = socket.connect_to_server()
        if len(sockets) > 1:
            again.set()
            return

        def answer(message: str | bytes) -> None:
            socket.send(message)
            if "connection_ack" in str(message):
                socket.send(json.dumps({"id": "1", **ending}))

        server.on_message(answer)

    return connect


@pytest.mark.parametrize(
    "ending",
    [
        {"type": "complete"},
        {"type": "error", "payload": [{"message": "x", "extensions": {"code": "OVERLOADED"}}]},
    ],
    ids=["complete", "error"],
)
async def test_a_subscription_that_ends_begins_again(
    tab: Tab, ending: dict[str, object], without_ct: bytes, samples: Served
) -> None:
    again = asyncio.Event()
    await tab.page.route_web_socket("**/graphql", _ending_first(ending, again))
    page = await tab.open("#q=1CT1")
    await asyncio.wait_for(again.wait(), PATIENCE_SECONDS)
    await expect(page.locator(_LIVE)).to_have_text("Live")
    await _upload(samples, without_ct)
    await expect(page.locator(_ROWS)).to_have_count(1)


async def test_a_subscription_that_lost_its_token_asks_for_one(tab: Tab) -> None:
    refused = [{"message": "x", "extensions": {"code": "UNAUTHENTICATED"}}]
    ending: dict[str, object] = {"type": "error", "payload": refused}
    again = asyncio.Event()
    await tab.page.route_web_socket("**/graphql", _ending_first(ending, again))
    page = await tab.open()
    await expect(page.locator("#sign-in")).to_be_visible()
    assert not again.is_set()
    await page.locator("#sign-in").get_by_label("Token").fill("another")
    await page.keyboard.press("Enter")
    await asyncio.wait_for(again.wait(), PATIENCE_SECONDS)
