"""What follows Orthanc goes on after exceptions that nobody expected."""

import asyncio
from unittest.mock import MagicMock

import pytest

from services.dicom.layout import WalkLimits
from services.sync.service import SyncService
from services.tasks import Supervisor
from tests.patience import PATIENCE_SECONDS

INSTANCE = "f689ddd2-662f8fe1-8b18180d-ec2a2cee-937917af"


class FailsFirst:
    """Raises when it is called first; tells when it is called again."""

    def __init__(self) -> None:
        self.calls = 0
        self.again = asyncio.Event()

    async def __call__(self, *_given: object) -> None:
        self.calls += 1
        if self.calls == 1:
            raise LookupError
        self.again.set()
        await asyncio.sleep(60)


async def test_following_that_fails_starts_again(caplog: pytest.LogCaptureFixture) -> None:
    run = FailsFirst()
    supervisor = Supervisor()
    async with supervisor.running("sync", run):
        async with asyncio.timeout(PATIENCE_SECONDS):
            await run.again.wait()
        assert supervisor.failing == {"sync": "LookupError"}
    assert "the background task 'sync' failed" in caplog.text
    assert "LookupError" in caplog.text


async def test_a_notice_that_breaks_the_code_does_not_end_the_looking(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sync = SyncService(
        MagicMock(),
        MagicMock(),
        MagicMock(),
        MagicMock(),
        poll_seconds=60,
        interval_seconds=0.01,
        limits=WalkLimits(),
    )
    sync.reconciler = MagicMock()
    sync.reconciler.reconcile = fails = FailsFirst()
    looking = asyncio.create_task(sync._look_into_notices())
    sync.notice_deleted([INSTANCE])
    async with asyncio.timeout(PATIENCE_SECONDS):
        await fails.again.wait()
    assert not looking.done()
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    assert "LookupError" in caplog.text
