"""Orthanc's Lua script tells what it deletes, at once."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette

from graph.routes import orthanc_events
from services.embedded.mongod import EmbeddedMongod
from services.embedded.orthanc import EmbeddedOrthanc, run_orthanc
from services.sync.orthanc_script import EVENTS_PATH, SECRET_HEADER, deletion_script
from services.sync.service import SyncService
from tests.real.sync_stage import eventually, instance_bytes, open_stage, running

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
            await stage.http.delete(f"/series/{(await stage.http.get('/series')).json()[0]}")
            await eventually(stage.is_in_step, within_seconds=10)
            await stage.http.delete(f"/studies/{(await stage.http.get('/studies')).json()[0]}")
            await eventually(stage.is_in_step, within_seconds=10)
            assert await stage.instance_ids() == set()


@pytest.mark.parametrize(
    ("secret", "body", "status"),
    [
        (SECRET, b'{"deleted": ["no id"]}', 204),
        ("wrong", b'{"deleted": []}', 403),
        ("", b'{"deleted": []}', 403),
        (SECRET, b"{", 400),
        (SECRET, b'{"deleted": 1}', 400),
        (SECRET, b" " * 70_000, 400),
    ],
)
async def test_notices_need_the_secret_and_a_list(
    mongodb: EmbeddedMongod,
    empty_orthanc: EmbeddedOrthanc,
    secret: str,
    body: bytes,
    status: int,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with (
            open_stage(mongodb, empty_orthanc) as stage,
            _listening(listener, stage.sync) as url,
            httpx.AsyncClient(base_url=url) as http,
        ):
            answer = await http.post(EVENTS_PATH, content=body, headers={SECRET_HEADER: secret})
    assert answer.status_code == status


def test_a_secret_that_would_break_out_of_the_script_is_refused() -> None:
    with pytest.raises(ValueError, match="letters and digits"):
        deletion_script("http://127.0.0.1", "a'b")
