import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import bson
import pytest
from bson import encode
from pydantic import TypeAdapter
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import AutoReconnect, BulkWriteError, ConnectionFailure

from models.audit_record import StoredIds
from services import audit as audit_module
from services.audit import Action, Audit, AuditEvent, describe_event, open_audit, parse_since
from services.auth.roles import Principal, Role
from services.errors import DatabaseUnavailable, InvalidInput
from services.orthanc.identifiers import orthanc_ids

STORED_IDS = TypeAdapter[list[str]](StoredIds)
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


def event(action: Action = Action.VIEW, **facts: Any) -> AuditEvent:
    return AuditEvent(action=action, principal=ANN, correlation_id="c1", **facts)


def test_a_deed_is_described_with_the_public_names() -> None:
    described = describe_event(
        event(
            study_ids={"s2", "s1"},
            patient_ids={"p"},
            number_of_objects=3,
            minted_urls=2,
            searched="s",
        ),
        now=NOW,
        retention=timedelta(days=1),
    )
    assert described.pop("_id").generation_time == NOW
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
        "mintedUrls": 2,
        "searched": "s",
        "expiresAt": NOW + timedelta(days=1),
    }


def page() -> AuditEvent:
    """What a page of a worklist with thumbnails is recorded as."""
    ids = [orthanc_ids(f"P{i}", f"1.2.{i}", "1", "1") for i in range(50)]
    return event(
        patient_ids={one.patient for one in ids},
        study_ids={one.study for one in ids},
        number_of_objects=150,
        minted_urls=50,
        searched="studies",
        detail="studies,Frame.url",
        client_address="192.168.100.200",
    )


def test_identifiers_are_stored_in_half_the_bytes_and_read_as_they_were() -> None:
    described = describe_event(page(), now=NOW, retention=None)
    # As an earlier release wrote it, with text.
    earlier = {
        "orthancPatientIds": sorted(page().patient_ids),
        "orthancStudyIds": sorted(page().study_ids),
    }
    for name, ids in earlier.items():
        assert STORED_IDS.validate_python(described[name]) == ids
        assert STORED_IDS.validate_python(ids) == ids
    assert len(encode(described)) <= len(encode(described | earlier)) / 2


def test_a_record_about_nobody_takes_no_room_in_the_index_of_patients() -> None:
    described = describe_event(event(), now=NOW, retention=None)
    assert not {"orthancPatientIds", "orthancStudyIds"} & described.keys()


def test_without_retention_a_record_has_no_end() -> None:
    assert "expiresAt" not in describe_event(event(), now=NOW, retention=None)


async def test_a_record_is_written_before_it_returns(collection: Collection) -> None:
    await audit_on(collection).record(event(Action.UPLOAD))
    assert collection.actions == ["upload"]


async def test_a_record_that_fails_says_so_and_is_written_later(collection: Collection) -> None:
    audit = audit_on(collection)
    collection.fault = AutoReconnect("away")
    with pytest.raises(DatabaseUnavailable):
        await audit.record(event(Action.DELETE))
    assert (collection.actions, audit.waiting) == ([], 1)
    collection.fault = None
    await audit.flush()
    assert (collection.actions, audit.waiting) == (["delete"], 0)


async def test_a_record_that_may_wait_is_written_before_it_returns_or_later(
    collection: Collection, caplog: pytest.LogCaptureFixture
) -> None:
    audit = audit_on(collection)
    await audit.record_or_queue(event(Action.UPLOAD))
    assert (collection.actions, audit.waiting) == (["upload"], 0)
    collection.fault = AutoReconnect("away")
    await audit.record_or_queue(event(Action.UPLOAD))
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
    await audit.record_or_queue(event(Action.UPLOAD))
    with pytest.raises(DatabaseUnavailable):
        await audit.record_or_queue(event(Action.UPLOAD))


async def test_notes_are_written_in_order_when_flushed(collection: Collection) -> None:
    audit = audit_on(collection)
    await audit.enqueue(event(Action.VIEW))
    await audit.enqueue(event(Action.MINT))
    assert collection.actions == []
    await audit.flush()
    assert collection.actions == ["view", "mint"]


async def test_nothing_is_lost_while_mongodb_is_away(collection: Collection) -> None:
    audit = audit_on(collection)
    await audit.enqueue(event(Action.VIEW))
    collection.fault = AutoReconnect("away")
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable):
            await audit.flush()
    await audit.enqueue(event(Action.MINT))
    collection.fault = None
    await audit.flush()
    assert collection.actions == ["view", "mint"]


async def test_records_that_are_there_already_count_as_written(collection: Collection) -> None:
    audit = audit_on(collection)
    await audit.enqueue(event())
    collection.fault = BulkWriteError({"writeErrors": [{"code": 11000}]})
    await audit.flush()
    assert audit.waiting == 0


async def test_deeds_that_are_recorded_meanwhile_share_a_command(collection: Collection) -> None:
    audit = audit_on(collection)
    await asyncio.gather(*(audit.record(event(Action.UPLOAD)) for _ in range(5)))
    assert collection.actions == ["upload"] * 5
    assert collection.sizes == [5]
    await asyncio.gather(audit.record(event(Action.UPLOAD)), audit.record(event(Action.DELETE)))
    assert collection.sizes == [5, 2]


async def test_each_of_them_is_queued_when_the_command_fails(collection: Collection) -> None:
    audit = audit_on(collection)
    collection.fault = ConnectionFailure()
    outcomes = await asyncio.gather(
        *(audit.record(event(Action.DELETE)) for _ in range(3)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [DatabaseUnavailable] * 3
    assert audit.waiting == 3
    collection.fault = None
    await audit.flush()
    assert collection.actions == ["delete"] * 3


async def test_a_record_survives_any_error_and_a_caller_who_goes(collection: Collection) -> None:
    audit = audit_on(collection)
    collection.fault = RuntimeError("unexpected")
    await audit.record_or_queue(event(Action.UPLOAD))
    with pytest.raises(RuntimeError):
        await audit.record(event(Action.DELETE))
    recording = asyncio.create_task(audit.record(event(Action.ARCHIVE)))
    await asyncio.sleep(0)
    recording.cancel()
    await audit.aclose()
    assert (collection.actions, audit.waiting) == ([], 3)
    collection.fault = None
    await audit.flush()
    assert sorted(collection.actions) == ["archive", "delete", "upload"]


async def test_a_record_that_mongodb_does_not_take_stops_no_other(
    collection: Collection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    insert_many = collection.insert_many

    async def insert_encoded(documents: Sequence[dict[str, Any]], *, ordered: bool) -> None:
        for document in documents:
            bson.encode(document)
        await insert_many(documents, ordered=ordered)

    monkeypatch.setattr(collection, "insert_many", insert_encoded)
    audit = audit_on(collection)
    for searched in ("a", "\ud800", "b"):
        await audit.enqueue(event(searched=searched))
    await audit.flush()
    assert [document["searched"] for document in collection.documents] == ["a", "b"]
    assert audit.waiting == 0
    assert "An audit record was refused (UnicodeEncodeError): view by ann" in caplog.text


async def test_other_faults_of_a_batch_keep_it(collection: Collection) -> None:
    audit = audit_on(collection)
    await audit.enqueue(event())
    collection.fault = BulkWriteError({"writeErrors": [{"code": 11000}, {"code": 121}]})
    with pytest.raises(DatabaseUnavailable):
        await audit.flush()
    assert audit.waiting == 1


async def test_a_view_that_can_not_be_noted_fails(
    collection: Collection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(audit_module, "_WAIT_SECONDS", 0.01)
    audit = audit_on(collection, queue_size=1)
    await audit.enqueue(event())
    with pytest.raises(DatabaseUnavailable):
        await audit.enqueue(event())
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def refusal(address: str = "198.51.100.7", principal: Principal | None = None) -> AuditEvent:
    return AuditEvent(
        action=Action.REFUSAL,
        principal=principal,
        correlation_id="c1",
        client_address=address,
        detail="GET /frames",
        outcome="FRAME_URL_INVALID",
    )


async def test_refusals_of_strangers_share_a_record_a_minute(collection: Collection) -> None:
    seconds = 0.0
    audit = audit_on(collection, monotonic=lambda: seconds)
    following = asyncio.create_task(audit.follow())
    for _ in range(1000):
        await audit.enqueue(refusal())
    await written(collection, 1)
    assert collection.documents[0]["numberOfObjects"] == 1
    seconds = 60.0
    await written(collection, 2)
    counted = collection.documents[1]
    assert (counted["numberOfObjects"], counted["correlationID"]) == (999, "-")
    assert (counted["detail"], counted["outcome"]) == ("GET /frames", "FRAME_URL_INVALID")
    assert counted["clientAddress"] == "198.51.100.7"
    # In the next minute it begins again; a minute without refusals writes nothing.
    await audit.enqueue(refusal())
    await written(collection, 3)
    following.cancel()
    await asyncio.wait([following])
    await audit.aclose()
    await audit.flush()
    assert collection.actions == ["refusal"] * 3


async def test_strangers_of_any_number_of_addresses_share_records(collection: Collection) -> None:
    audit = audit_on(collection)
    for number in range(5000):
        await audit.enqueue(refusal(f"198.51.{number // 250}.{number % 250}"))
    await audit.aclose()
    await audit.flush()
    assert len(collection.documents) == 51
    assert sum(document["numberOfObjects"] for document in collection.documents) == 5000
    others = collection.documents[-1]
    assert (others["detail"], others["numberOfObjects"]) == ("(others)", 4950)
    assert "clientAddress" not in others


async def test_refusals_of_somebody_known_have_a_record_each(collection: Collection) -> None:
    audit = audit_on(collection)
    for _ in range(3):
        await audit.enqueue(refusal(principal=ANN))
    await audit.flush()
    assert [document["numberOfObjects"] for document in collection.documents] == [1, 1, 1]


async def test_refusals_of_strangers_find_no_room_and_are_counted(collection: Collection) -> None:
    audit = audit_on(collection, queue_size=1)
    await audit.enqueue(event())
    for _ in range(3):
        await audit.enqueue(refusal())
    await audit.aclose()
    assert audit.waiting == 1
    await audit.flush()
    await audit.aclose()
    await audit.flush()
    assert collection.actions == ["view", "refusal"]
    assert collection.documents[1]["numberOfObjects"] == 3


async def written(collection: Collection, count: int) -> None:
    async with asyncio.timeout(30):
        while len(collection.documents) < count:  # noqa: ASYNC110  # a fake tells nobody
            await asyncio.sleep(0.01)


async def test_what_waits_is_written_when_the_server_stops(collection: Collection) -> None:
    async with open_audit(database_with(collection)) as audit:
        await audit.enqueue(event())
    assert collection.actions == ["view"]


async def test_what_can_not_be_written_at_the_end_is_told(
    collection: Collection, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_audit(database_with(collection)) as audit:
        await audit.enqueue(event())
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
    with pytest.raises(InvalidInput, match="is not a time"):
        parse_since(text, now=NOW)
