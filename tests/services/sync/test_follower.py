from unittest.mock import AsyncMock

import pytest

from services.errors import OrthancTimedOut
from services.orthanc.answers import Change, ChangePage
from services.sync.cursor import NEW_INSTANCE
from services.sync.follower import Follower


async def test_an_orthanc_that_is_slow_gives_up_no_instance() -> None:
    orthanc, reconciler = AsyncMock(), AsyncMock()
    reconciler.reconcile.side_effect = OrthancTimedOut
    follower = Follower(
        orthanc, AsyncMock(), reconciler, AsyncMock(), poll_seconds=0, on_gap=lambda: None
    )
    changes = [Change(sequence, NEW_INSTANCE, f"instance {sequence}") for sequence in (1, 2)]
    for _ in range(6):
        with pytest.raises(OrthancTimedOut):
            await follower._apply(ChangePage(changes, last=2, is_last_page=True))
    assert [len(call.args[0]) for call in reconciler.reconcile.await_args_list] == [2] * 6
    reconciler.give_up.assert_not_awaited()
