"""OHIF's first pixels of a large series, beside Orthanc's DICOMweb plugin."""

import asyncio
import base64
import http.client
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from playwright.async_api import Browser, async_playwright
from pydicom.uid import generate_uid

from tests.benchmarks.measurement import Line, Row, alternating_medians
from tests.benchmarks.stage import Stage, open_stage
from tests.benchmarks.studies import ct_files
from tests.browser.ohif import FLAGS, SHOWS_PIXELS, app_config, ohif_folder, serving_ohif

_UID_ROOT = "1.2.826.0.1.3680043.8.498."
_SLICES = 600
_PATIENT = "OHIF"
_STABLE_SECONDS = 5
_PREPARED_SECONDS = 15
_PATIENCE_MS = 120_000
_RUNS = 3
_CHROMIUM = "/usr/bin/chromium"


async def run() -> list[Line]:
    """Measure from the address of a study to its first pixels, with an empty browser cache."""
    built = await asyncio.to_thread(ohif_folder)
    if isinstance(built, str):
        raise RuntimeError(built)  # noqa: TRY004  # it is the reason
    async with open_stage(STUDY_STABLE_SECONDS=str(_STABLE_SECONDS)) as stage:
        for content in ct_files(_SLICES, patient_id=_PATIENT):
            (await stage.orthanc.post("/instances", content=content)).raise_for_status()
        await stage.wait_for_instances(_SLICES)
        # The headers are prepared when the study is stable, as in a hospital.
        await asyncio.sleep(_STABLE_SECONDS + _PREPARED_SECONDS)
        return [await _first_pixels(stage, built)]


async def _first_pixels(stage: Stage, built: Path) -> Row:
    ours = (f"{stage.url}/dicomweb", None)
    stores = stage.stores.stores
    credentials = f"{stores.orthanc_username}:{stores.orthanc_password}"
    theirs = (f"{stores.orthanc_url}/dicom-web", credentials)
    uid = generate_uid(_UID_ROOT, entropy_srcs=[_PATIENT])
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=_CHROMIUM, args=FLAGS)

        async def open_study(root: str, password: str | None) -> None:
            with (
                _forwarding(root, password) as forwarded,
                serving_ohif(built, [app_config(forwarded)]) as viewer,
            ):
                await _open(browser, f"{viewer}/viewer?StudyInstanceUIDs={uid}")

        our_seconds, their_seconds = await alternating_medians(
            [partial(open_study, *ours), partial(open_study, *theirs)], runs=_RUNS
        )
        await browser.close()
    return Row(
        case=f"OHIF: first pixels of a series of {_SLICES} CT",
        ours_seconds=our_seconds,
        rival="Orthanc's DICOMweb plugin",
        rival_seconds=their_seconds,
        goal=2,
    )


async def _open(browser: Browser, address: str) -> None:
    context = await browser.new_context(viewport={"width": 1280, "height": 800})
    page = await context.new_page()
    await page.goto(address)
    await page.wait_for_function(SHOWS_PIXELS, timeout=_PATIENCE_MS)
    await context.close()


@contextmanager
def _forwarding(root: str, credentials: str | None) -> Iterator[str]:
    """Forward to a DICOMweb root with CORS and credentials, which Orthanc has no way to grant.

    Both servers are asked through it, so that it costs both the same.
    """
    target = urlsplit(root)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_OPTIONS(self) -> None:
            self.send_response(204)
            self._allow()
            self.end_headers()

        def do_GET(self) -> None:
            # A new one each time: Orthanc closes those that are idle for a second.
            connection = http.client.HTTPConnection(target.netloc, timeout=60)
            headers = {
                name: value
                for name, value in self.headers.items()
                if name.lower() in {"accept", "accept-encoding"}
            }
            if credentials is not None:
                encoded = base64.b64encode(credentials.encode()).decode()
                headers["Authorization"] = f"Basic {encoded}"
            connection.request("GET", target.path + self.path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
            self.send_response(answer.status)
            for name in ("Content-Type", "Content-Encoding"):
                if (value := answer.getheader(name)) is not None:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self._allow()
            self.end_headers()
            self.wfile.write(body)

        def _allow(self) -> None:
            self.send_header("Access-Control-Allow-Origin", "*")
            self.send_header("Access-Control-Allow-Headers", "*")

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
