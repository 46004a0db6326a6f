"""What becomes of a deed while MongoDB takes no record of it."""

from typing import TYPE_CHECKING, Any, cast
from unittest.mock import AsyncMock

import pytest
from pymongo.errors import AutoReconnect

from graph.execution.audit import recorded
from services import audit as audit_module
from services.audit import Action, Audit
from services.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from pymongo.asynchronous.database import AsyncDatabase


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> Audit:
    """A trail with room for one record, whose MongoDB is away."""
    monkeypatch.setattr(audit_module, "_WAIT_SECONDS", 0.01)
    away = AsyncMock()
    away.insert_many.side_effect = AutoReconnect("away")
    return Audit(cast("AsyncDatabase[dict[str, Any]]", {"audit": away}), queue_size=1)


async def test_the_results_of_an_upload_go_out_when_its_record_waits(audit: Audit) -> None:
    async with recorded(audit, Action.UPLOAD, None, detail="uploadDicom"):
        pass
    assert audit.waiting == 1


async def test_an_upload_whose_record_is_lost_fails(audit: Audit) -> None:
    async with recorded(audit, Action.UPLOAD, None, detail="uploadDicom"):
        pass
    with pytest.raises(DatabaseUnavailable):
        async with recorded(audit, Action.UPLOAD, None, detail="uploadDicom"):
            pass
    assert audit.waiting == 1


@pytest.mark.parametrize("action", [Action.DELETE, Action.SYNCHRONIZE, Action.ARCHIVE])
async def test_other_deeds_fail_although_their_record_waits(audit: Audit, action: Action) -> None:
    with pytest.raises(DatabaseUnavailable):
        async with recorded(audit, action, None, detail="it"):
            pass
    assert audit.waiting == 1
