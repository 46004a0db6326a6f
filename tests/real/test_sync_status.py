"""How far behind the feed is."""

import os
import signal
from pathlib import Path

import pytest

from services.embedded.mongod import EmbeddedMongod
from services.embedded.orthanc import EmbeddedOrthanc, run_orthanc
from services.sync import service
from tests.real.sync_stage import eventually, instance_bytes, open_stage, running


async def test_the_status_counts_what_waits_and_goes_back_to_nothing(
    mongodb: EmbeddedMongod, empty_orthanc: EmbeddedOrthanc
) -> None:
    async with open_stage(mongodb, empty_orthanc) as stage:
        async with running(stage.sync):
            await stage.send([instance_bytes(1, 1, 1)])
            await eventually(stage.is_in_step)
        await stage.send([instance_bytes(1, 1, 2)])
        waiting = await stage.sync.status()
        assert not waiting.is_following
        assert waiting.behind_changes is not None
        assert waiting.behind_changes >= 1
        async with running(stage.sync):
            await eventually(stage.is_in_step)

            async def has_caught_up() -> bool:
                status = await stage.sync.status()
                return status.behind_changes == 0 and status.behind_seconds == 0

            await eventually(has_caught_up)
            assert (await stage.sync.status()).is_following


async def test_the_status_does_not_wait_for_an_orthanc_that_hangs(
    mongodb: EmbeddedMongod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_STATUS_SECONDS", 0.2)
    async with run_orthanc(tmp_path) as orthanc, open_stage(mongodb, orthanc) as stage:
        os.kill(orthanc.child.pid, signal.SIGSTOP)
        try:
            status = await stage.sync.status()
        finally:
            os.kill(orthanc.child.pid, signal.SIGCONT)
    assert status.behind_changes is None
    assert status.last_error == "MongoDB or Orthanc takes too long to answer."
