"""What the follower says while it can't follow."""

import asyncio
import logging
from unittest.mock import AsyncMock, Mock

import pytest

from services.errors import DatabaseUnavailable, OrthancAuthenticationFailed
from services.orthanc.answers import ChangePage
from services.sync.follower import Follower
from tests.patience import PATIENCE_SECONDS

FOLLOWED = "the change feed is followed from its end; a comparison finds what is before"
EMPTY = ChangePage(changes=(), last=7, is_last_page=True)


async def said_by(
    orthanc: AsyncMock, cursor: AsyncMock, caplog: pytest.LogCaptureFixture
) -> list[str]:
    """Follow until a page was read; return the log."""
    cursor.claim.return_value = None
    cursor.election = None
    has_followed = asyncio.Event()

    async def changes(*_: int) -> ChangePage:
        has_followed.set()
        return EMPTY

    orthanc.changes.side_effect = changes
    follower = Follower(
        orthanc, cursor, AsyncMock(), AsyncMock(), poll_seconds=0.001, on_gap=Mock()
    )
    caplog.set_level(logging.INFO, "services.sync.follower")
    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as tasks:
        following = tasks.create_task(follower.follow(1))
        await has_followed.wait()
        following.cancel()
    return [record.getMessage().partition(": ")[0] for record in caplog.records]


async def test_following_is_told_once_orthanc_told_its_position(
    caplog: pytest.LogCaptureFixture,
) -> None:
    orthanc = AsyncMock()
    orthanc.newest_change.side_effect = [OrthancAuthenticationFailed] * 3 + [EMPTY]
    assert await said_by(orthanc, AsyncMock(), caplog) == ["the change feed waits", FOLLOWED]


async def test_following_is_told_once_the_position_is_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    orthanc, cursor = AsyncMock(), AsyncMock()
    orthanc.newest_change.return_value = EMPTY
    cursor.move.side_effect = [DatabaseUnavailable, DatabaseUnavailable, None]
    assert await said_by(orthanc, cursor, caplog) == ["the change feed waits", FOLLOWED]
