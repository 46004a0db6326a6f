"""Orthanc's Lua script tells what it deletes, at once."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import uvicorn
from starlette.applications import Starlette

from graph.routes import orthanc_events
from services.embedded.mongod import EmbeddedMongod
from services.embedded.orthanc import run_orthanc
from services.errors import InvalidInput
from services.sync.orthanc_script import EVENTS_PATH, SECRET_HEADER, deletion_script
from services.sync.service import SyncService
from tests.real.sync_stage import eventually, instance_bytes, open_stage, running
from tests.servers import RunningServer

SECRET = "0123456789abcdef"


@asynccontextmanager
async def _listening(listener: socket.socket, sync: SyncService) -> AsyncIterator[str]:
    runtime = SimpleNamespace(sync=sync, orthanc_events_secret=SECRET)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, object]]:
        yield {"runtime": runtime}

    app = Starlette(routes=orthanc_events.routes, lifespan=lifespan)
    server = uvicorn.Server(uvicorn.Config(app, lifespan="on", log_config=None))
    task = asyncio.create_task(server._serve([listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


async def test_a_deletion_in_orthanc_shows_without_a_comparison(
    mongodb: EmbeddedMongod, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        script = tmp_path / "deletions.lua"
        script.write_text(deletion_script(f"http://127.0.0.1:{listener.getsockname()[1]}", SECRET))
        async with (
            run_orthanc(tmp_path / "orthanc", lua_scripts=[script]) as orthanc,
            open_stage(mongodb, orthanc, interval_seconds=3600) as stage,
            _listening(listener, stage.sync),
            running(stage.sync),
        ):
            await stage.send([instance_bytes(1, series, 1) for series in (1, 2, 3)])
            await eventually(stage.is_in_step)
            await stage.modality.delete(
                f"/series/{(await stage.modality.get('/series')).json()[0]}"
            )
            await eventually(stage.is_in_step)
            await stage.modality.delete(
                f"/studies/{(await stage.modality.get('/studies')).json()[0]}"
            )
            await eventually(stage.is_in_step)
            assert await stage.instance_ids() == set()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"deleted": ["no id"]}', 204),
        (b"{", 400),
        (b'{"deleted": 1}', 400),
        (b" " * 70_000, 400),
    ],
)
async def test_notices_with_the_secret_need_a_list(
    server: RunningServer, body: bytes, status: int
) -> None:
    secret = {SECRET_HEADER: server.runtime.orthanc_events_secret}
    answer = await server.http.post(EVENTS_PATH, content=body, headers=secret)
    assert answer.status_code == status


@pytest.mark.parametrize("headers", [{}, {SECRET_HEADER: "wrong"}, {SECRET_HEADER: ""}])
async def test_notices_without_the_secret_are_refused(
    server: RunningServer, headers: dict[str, str]
) -> None:
    answer = await server.http.post(EVENTS_PATH, content=b'{"deleted": []}', headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")


@pytest.mark.parametrize(
    ("url", "secret", "message"),
    [
        ("http://127.0.0.1", "a'b", "letters and digits"),
        ("http://127.0.0.1", "", "letters and digits"),
        ("http://127.0.0.1/'..os.execute('x')..'", "ab", "http://host:port"),
        ("127.0.0.1:8000", "ab", "http://host:port"),
    ],
)
def test_what_would_break_out_of_the_script_is_refused(url: str, secret: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        deletion_script(url, secret)
