"""Orthanc killed again and again, under frames, metadata queries and uploads.

It is killed three times, each time as soon as it shows frames again. With KILLS=12 it is killed
every 5 seconds for a minute.
"""

import asyncio
import io
import os
import random
import signal
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from pydicom import dcmread

from services.embedded.orthanc import EmbeddedOrthanc, run_orthanc
from services.errors import OrthancOutcomeUnknown
from services.files import FileRange
from services.ingest.service import SentFile
from services.orthanc.answers import StoreAnswer
from services.orthanc.files import OrthancFiles
from services.runtime import open_runtime
from services.settings import Settings
from tests.benchmarks.studies import ct_files
from tests.patience import PATIENCE_SECONDS
from tests.real.steady_load import steady
from tests.real.sync_stage import eventually, modality_client
from tests.servers import RunningServer, run_server

KILLS = int(os.environ.get("KILLS", "3"))
_PAUSE_SECONDS = 5 if "KILLS" in os.environ else 0
_LONGEST_SECONDS = 10 if "KILLS" in os.environ else PATIENCE_SECONDS
_BACK_SECONDS = 3 if "KILLS" in os.environ else PATIENCE_SECONDS
"""Times are measured on request only: on a busy machine they say nothing."""

_INSTANCES = 40
_UPLOADS = 200

TREE = """{ studies { totalCount nodes { numberOfInstances
  series { instances { sopInstanceUID frames { url } } } } } }"""


@dataclass(frozen=True, slots=True)
class Stage:
    """A server on an Orthanc of its own, which comes back after its deaths."""

    orthanc: EmbeddedOrthanc
    server: RunningServer

    async def tree(self, _number: int = 0) -> list[str]:
        """Ask for everything, which must succeed; answers the URLs of all frames."""
        async with asyncio.timeout(_LONGEST_SECONDS):
            data: Any = await self.server.graphql(TREE)
        return [
            frame["url"]
            for study in data["studies"]["nodes"]
            for series in study["series"]
            for instance in series["instances"]
            for frame in instance["frames"]
        ]

    async def is_indexed(self) -> bool:
        """Tell whether all frames are known."""
        return len(await self.tree()) == _INSTANCES

    async def frame(self, url: str) -> httpx.Response:
        """Ask for a picture."""
        async with asyncio.timeout(_LONGEST_SECONDS):
            return await self.server.http.get(url)

    async def is_alive(self, _number: int) -> None:
        """Fail unless `/healthz` answers."""
        assert (await self.server.http.get("/healthz")).json() == {"status": "ok"}


@pytest.fixture
async def stage(settings: Settings, tmp_path: Path) -> AsyncIterator[Stage]:
    async with run_orthanc(tmp_path / "mortal") as orthanc:
        given = settings.model_copy(
            update={
                "orthanc_url": orthanc.url,
                "orthanc_username": orthanc.username,
                "orthanc_password": SecretStr(orthanc.password),
                "operation_seconds": _LONGEST_SECONDS,
                # Every frame is asked of Orthanc.
                "frame_cache_bytes": 0,
            }
        )
        async with (
            open_runtime(given, address="127.0.0.1:0") as runtime,
            run_server(given, runtime) as server,
        ):
            yield Stage(orthanc, server)


async def test_orthanc_killed_again_and_again_costs_some_frames_and_no_query(stage: Stage) -> None:
    async with modality_client(stage.orthanc) as modality:
        for content in ct_files(_INSTANCES, size=128):
            (await modality.post("/instances", content=content)).raise_for_status()
    await eventually(stage.is_indexed)
    urls = await stage.tree()
    chance = random.Random(0)  # noqa: S311  # no secret

    async def shows_a_frame_after(kills: int) -> bool:
        is_restarted = stage.orthanc.child.restarts == kills
        return is_restarted and (await stage.frame(urls[0])).status_code == 200

    async def shows_everything() -> bool:
        answers = await asyncio.gather(*map(stage.frame, urls))
        return all(answer.status_code == 200 for answer in answers)

    async with (
        steady(20, lambda _: stage.frame(chance.choice(urls))) as frames,
        steady(10, stage.tree),
        steady(2, stage.is_alive),
    ):
        for kills in range(KILLS):
            await asyncio.sleep(_PAUSE_SECONDS)
            await eventually(partial(shows_a_frame_after, kills))
            os.kill(stage.orthanc.child.pid, signal.SIGKILL)
        await eventually(shows_everything, within_seconds=_BACK_SECONDS)
    assert stage.orthanc.child.restarts == KILLS
    assert {answer.status_code for answer in frames} <= {200, 503}
    refused = [answer for answer in frames if answer.status_code == 503]
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)


async def test_a_crash_under_uploads_fails_none_of_them(stage: Stage) -> None:
    contents = list(ct_files(_UPLOADS, size=128))
    files = [SentFile(f"{n}.dcm", partial(io.BytesIO, one)) for n, one in enumerate(contents)]
    runtime = stage.server.runtime
    results = []
    async for result in runtime.ingest.results(files):
        results.append(result)
        if len(results) in (_UPLOADS // 4, _UPLOADS // 2):
            os.kill(stage.orthanc.child.pid, signal.SIGKILL)
    assert stage.orthanc.child.restarts == 2
    assert {(one.status.value, one.error and one.error.code) for one in results} <= {
        ("STORED", None),
        ("ALREADY_STORED", None),
    }
    assert runtime.orthanc is not None
    assert (await runtime.orthanc.statistics()).instances == _UPLOADS
    assert await runtime.database["instances"].count_documents({}) == _UPLOADS


async def test_a_file_that_stops_orthanc_takes_no_other_with_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file kills Orthanc whenever it has come in, as a crash of its parser does."""
    contents = list(ct_files(_UPLOADS, size=128))
    deadly = dcmread(io.BytesIO(contents[_UPLOADS // 2])).SOPInstanceUID.encode()
    store, kills = OrthancFiles.store, []

    def store_or_die(
        files: OrthancFiles, pieces: Iterable[bytes | FileRange], size_bytes: int
    ) -> StoreAnswer:
        sent = list(pieces)
        if any(isinstance(one, bytes) and deadly in one for one in sent):
            kills.append(stage.orthanc.child.pid)
            os.kill(stage.orthanc.child.pid, signal.SIGKILL)
            raise OrthancOutcomeUnknown
        return store(files, sent, size_bytes)

    monkeypatch.setattr(OrthancFiles, "store", store_or_die)
    files = [SentFile(f"{n}.dcm", partial(io.BytesIO, one)) for n, one in enumerate(contents)]
    results = await stage.server.runtime.ingest.store(files)
    failed = [one.file_name for one in results if one.error is not None]
    assert failed == [f"{_UPLOADS // 2}.dcm"]
    assert len(kills) == 2
