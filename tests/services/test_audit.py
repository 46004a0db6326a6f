import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import AutoReconnect, BulkWriteError, ConnectionFailure

from services import audit as audit_module
from services.audit import Action, Audit, AuditEvent, describe_deed, open_audit, parse_since
from services.auth.roles import Principal, Role
from services.errors import DatabaseUnavailable, InvalidInput

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ANN = Principal("ann", Role.UPLOADER)


class Collection:
    """Takes documents, and fails while it is told to; it knows no update and no deletion."""

    def __init__(self) -> None:
        self.documents: list[dict[str, Any]] = []
        self.fault: Exception | None = None
        self.sizes: list[int] = []

    async def insert_many(self, documents: Sequence[dict[str, Any]], *, ordered: bool) -> None:
        assert not ordered
        self.sizes.append(len(documents))
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        self.documents.extend(documents)

    @property
    def actions(self) -> list[str]:
        return [document["action"] for document in self.documents]


@pytest.fixture
def collection() -> Collection:
    return Collection()


def audit_on(collection: Collection, **options: Any) -> Audit:
    return Audit(database_with(collection), **options)


def database_with(collection: Collection) -> AsyncDatabase[dict[str, Any]]:
    return cast("AsyncDatabase[dict[str, Any]]", {"audit": collection})


def deed(action: Action = Action.VIEW, **facts: Any) -> AuditEvent:
    return AuditEvent(action=action, principal=ANN, correlation_id="c1", **facts)


def test_a_deed_is_described_with_the_public_names() -> None:
    described = describe_deed(
        deed(study_ids=["s2", "s1", "s1"], patient_ids=["p"], number_of_objects=3),
        now=NOW,
        retention=timedelta(days=1),
    )
    assert len(described.pop("_id")) == 24
    assert described == {
        "at": NOW,
        "action": "view",
        "outcome": "ok",
        "principal": "ann",
        "role": "uploader",
        "correlationID": "c1",
        "orthancPatientIds": ["p"],
        "orthancStudyIds": ["s1", "s2"],
        "numberOfObjects": 3,
        "expiresAt": NOW + timedelta(days=1),
    }


def test_without_retention_a_record_has_no_end() -> None:
    assert "expiresAt" not in describe_deed(deed(), now=NOW, retention=None)


async def test_a_record_is_written_before_it_returns(collection: Collection) -> None:
    await audit_on(collection).record(deed(Action.UPLOAD))
    assert collection.actions == ["upload"]


async def test_a_record_that_fails_says_so_and_is_written_later(collection: Collection) -> None:
    audit = audit_on(collection)
    collection.fault = AutoReconnect("away")
    with pytest.raises(DatabaseUnavailable):
        await audit.record(deed(Action.DELETE))
    assert (collection.actions, audit.waiting) == ([], 1)
    collection.fault = None
    await audit.flush()
    assert (collection.actions, audit.waiting) == (["delete"], 0)


async def test_a_record_that_may_wait_is_written_before_it_returns_or_later(
    collection: Collection, caplog: pytest.LogCaptureFixture
) -> None:
    audit = audit_on(collection)
    await audit.record_or_queue(deed(Action.UPLOAD))
    assert (collection.actions, audit.waiting) == (["upload"], 0)
    collection.fault = AutoReconnect("away")
    await audit.record_or_queue(deed(Action.UPLOAD))
    assert (collection.actions, audit.waiting) == (["upload"], 1)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    collection.fault = None
    await audit.flush()
    assert (collection.actions, audit.waiting) == (["upload"] * 2, 0)


async def test_a_record_that_may_wait_and_finds_no_room_says_so(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_module, "_WAIT_SECONDS", 0.01)
    audit = audit_on(collection, queue_size=1)
    collection.fault = AutoReconnect("away")
    await audit.record_or_queue(deed(Action.UPLOAD))
    with pytest.raises(DatabaseUnavailable):
        await audit.record_or_queue(deed(Action.UPLOAD))


async def test_notes_are_written_in_order_when_flushed(collection: Collection) -> None:
    audit = audit_on(collection)
    await audit.note(deed(Action.VIEW))
    await audit.note(deed(Action.MINT))
    assert collection.actions == []
    await audit.flush()
    assert collection.actions == ["view", "mint"]


async def test_nothing_is_lost_while_mongodb_is_away(collection: Collection) -> None:
    audit = audit_on(collection)
    await audit.note(deed(Action.VIEW))
    collection.fault = AutoReconnect("away")
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable):
            await audit.flush()
    await audit.note(deed(Action.MINT))
    collection.fault = None
    await audit.flush()
    assert collection.actions == ["view", "mint"]


async def test_records_that_are_there_already_count_as_written(collection: Collection) -> None:
    audit = audit_on(collection)
    await audit.note(deed())
    collection.fault = BulkWriteError({"writeErrors": [{"code": 11000}]})
    await audit.flush()
    assert audit.waiting == 0


async def test_deeds_that_are_recorded_meanwhile_share_a_command(collection: Collection) -> None:
    audit = audit_on(collection)
    await asyncio.gather(*(audit.record(deed(Action.UPLOAD)) for _ in range(5)))
    assert collection.actions == ["upload"] * 5
    assert collection.sizes == [5]
    await asyncio.gather(audit.record(deed(Action.UPLOAD)), audit.record(deed(Action.DELETE)))
    assert collection.sizes == [5, 2]


async def test_each_of_them_is_queued_when_the_command_fails(collection: Collection) -> None:
    audit = audit_on(collection)
    collection.fault = ConnectionFailure()
    outcomes = await asyncio.gather(
        *(audit.record(deed(Action.DELETE)) for _ in range(3)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [DatabaseUnavailable] * 3
    assert audit.waiting == 3
    collection.fault = None
    await audit.flush()
    assert collection.actions == ["delete"] * 3


async def test_other_faults_of_a_batch_keep_it(collection: Collection) -> None:
    audit = audit_on(collection)
    await audit.note(deed())
    collection.fault = BulkWriteError({"writeErrors": [{"code": 11000}, {"code": 121}]})
    with pytest.raises(DatabaseUnavailable):
        await audit.flush()
    assert audit.waiting == 1


async def test_a_view_that_can_not_be_noted_fails(
    collection: Collection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(audit_module, "_WAIT_SECONDS", 0.01)
    audit = audit_on(collection, queue_size=1)
    await audit.note(deed())
    with pytest.raises(DatabaseUnavailable):
        await audit.note(deed())
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_refusals_beyond_the_queue_are_counted(collection: Collection) -> None:
    audit = audit_on(collection, queue_size=1)
    for _ in range(4):
        await audit.note(deed(Action.REFUSAL, outcome="UNAUTHENTICATED"))
    await audit.flush()
    await audit.flush()
    assert collection.actions == ["refusal", "dropped"]
    assert collection.documents[1]["numberOfObjects"] == 3


async def test_what_waits_is_written_when_the_server_stops(collection: Collection) -> None:
    async with open_audit(database_with(collection)) as audit:
        await audit.note(deed())
    assert collection.actions == ["view"]


async def test_what_can_not_be_written_at_the_end_is_told(
    collection: Collection, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_audit(database_with(collection)) as audit:
        await audit.note(deed())
        collection.fault = AutoReconnect("away")
    assert "1 audit records were lost" in caplog.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("15m", NOW - timedelta(minutes=15)),
        ("36h", NOW - timedelta(hours=36)),
        ("2d", NOW - timedelta(days=2)),
        ("1w", NOW - timedelta(weeks=1)),
        ("2025-12-31", datetime(2025, 12, 31, tzinfo=UTC)),
        ("2025-12-31T10:00+01:00", datetime(2025, 12, 31, 9, tzinfo=UTC)),
    ],
)
def test_since_is_a_span_or_a_date(text: str, expected: datetime) -> None:
    assert parse_since(text, now=NOW) == expected


@pytest.mark.parametrize("text", ["", "2", "d", "-2d", "yesterday", "999999w", "2d 3h"])
def test_another_since_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="is no time"):
        parse_since(text, now=NOW)
