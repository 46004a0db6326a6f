"""What a search leaves in the trail, and what happens while MongoDB takes no record."""

from datetime import date
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import AsyncMock

import pytest
from pymongo.errors import AutoReconnect

from graph.context import AccessLog
from graph.execution.audit import describe_search, record_accesses, recorded
from graph.inputs import DateRange, StudyFilter, StudyWhere
from services import audit as audit_module
from services.audit import Action, Audit
from services.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from pymongo.asynchronous.database import AsyncDatabase


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, "studies"),
        ({"first": 0, "after": "x", "last": None, "where": None}, "studies"),
        ({"filter_": StudyFilter(text="Müller")}, 'studies {"filter":{"text":"Müller"}}'),
        (
            {"filter_": StudyFilter(study_date=DateRange(from_=cast("Any", date(2026, 1, 2))))},
            'studies {"filter":{"studyDate":{"from":"2026-01-02"}}}',
        ),
        ({"filter_": StudyFilter()}, 'studies {"filter":{}}'),
        (
            {"where": StudyWhere(and_=[StudyWhere(matches=StudyFilter(text="Müller"))])},
            'studies {"where":{"and":[{"matches":{"text":"Müller"}}]}}',
        ),
        ({"node_id": "x"}, 'studies {"id":"x"}'),
        ({"patient_id": 'a"\n'}, 'studies {"patientID":"a\\"\\n"}'),
    ],
)
def test_a_search_is_written_with_its_arguments(
    arguments: dict[str, object], expected: str
) -> None:
    assert describe_search("studies", arguments) == expected


def test_a_long_search_is_cut() -> None:
    text = describe_search("studies", {"where": StudyFilter(study_instance_uids=["1.2"] * 500)})
    assert len(text) == 300
    assert text.endswith("…")


async def test_refused_fields_of_an_operation_share_a_record() -> None:
    audit = AsyncMock(spec=Audit)
    accesses = AccessLog(refusals=[("b", "FORBIDDEN"), ("a", "FORBIDDEN"), ("b", "FORBIDDEN")])
    await record_accesses(audit, accesses, None)
    await record_accesses(audit, accesses, None)
    [(event,)] = [call.args for call in audit.enqueue.await_args_list]
    assert (event.action, event.detail, event.outcome) == (Action.REFUSAL, "a,b", "FORBIDDEN")


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
async def test_other_actions_fail_although_their_record_waits(audit: Audit, action: Action) -> None:
    with pytest.raises(DatabaseUnavailable):
        async with recorded(audit, action, None, detail="it"):
            pass
    assert audit.waiting == 1
