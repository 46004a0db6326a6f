"""The audit trail in a real MongoDB, and the command that reads it."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner
from pymongo.asynchronous.database import AsyncDatabase

from graph.cli import main
from models.audit_record import AuditRecord
from services.audit import Action, Audit, AuditEvent, AuditSearch, _order, _query, read_audit
from services.auth.roles import Principal, Role
from services.database import open_database
from services.orthanc.identifiers import orthanc_ids, orthanc_patient_id
from services.settings import Settings

ANN = Principal("ann", Role.UPLOADER)
BOB = Principal("bob", Role.VIEWER)
NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[AsyncDatabase[dict[str, Any]]]:
    assert settings.mongodb_url is not None
    url = settings.mongodb_url.get_secret_value()
    async with open_database(url, settings.mongodb_database) as opened:
        yield opened


@pytest.fixture
async def trail(database: AsyncDatabase[dict[str, Any]]) -> AsyncDatabase[dict[str, Any]]:
    """Three events, the youngest written first."""
    events = [
        (timedelta(0), Action.DELETE, ANN, "PAT2"),
        (timedelta(hours=3), Action.VIEW, BOB, "PAT1"),
        (timedelta(days=3), Action.UPLOAD, ANN, "PAT1"),
    ]
    for age, action, principal, patient in events:
        ids = orthanc_ids(patient, "1.2", "1.2.3", "1.2.3.4")
        event = AuditEvent(
            action=action,
            principal=principal,
            correlation_id="c",
            patient_ids={ids.patient},
            study_ids={ids.study},
        )
        await Audit(database, now=lambda age=age: NOW - age).record(event)  # type: ignore[misc]  # mypy can't infer lambdas with defaults
    return database


async def found(**search: Any) -> list[str]:
    return [record.action async for record in read_audit(AuditSearch(**search))]


async def test_the_trail_is_read_newest_last(trail: AsyncDatabase[dict[str, Any]]) -> None:
    assert trail is not None
    assert await found() == ["upload", "view", "delete"]
    assert await found(since=NOW - timedelta(days=2)) == ["view", "delete"]
    assert await found(patient_id="PAT1") == ["upload", "view"]
    assert await found(patient_id="\u00a0PAT1 ") == ["upload", "view"]
    assert await found(patient_id="PAT1", since=NOW - timedelta(days=2)) == ["view"]
    assert await found(action=Action.DELETE) == ["delete"]
    assert await found(principal="bob") == ["view"]
    assert await found(patient_id="") == []
    assert await found(until=NOW - timedelta(days=2)) == ["upload"]
    assert await found(until=NOW) == ["upload", "view"]
    assert await found(since=NOW, until=NOW + timedelta(milliseconds=1)) == ["delete"]


async def test_the_trail_holds_no_patient_id(trail: AsyncDatabase[dict[str, Any]]) -> None:
    documents = await trail["audit"].find().to_list()
    assert len(documents) == 3
    assert "PAT1" not in str(documents)


async def test_reading_takes_an_index_and_sorts_nothing(
    trail: AsyncDatabase[dict[str, Any]],
) -> None:
    plan = await trail["audit"].find(_query(AuditSearch(since=NOW))).sort("_id").explain()
    winning = json.dumps(plan["queryPlanner"]["winningPlan"], default=str)
    assert "IXSCAN" in winning
    assert '"SORT"' not in winning
    assert "COLLSCAN" not in winning


async def test_reading_of_a_patient_touches_the_records_of_the_patient_alone(
    trail: AsyncDatabase[dict[str, Any]],
) -> None:
    search = AuditSearch(patient_id="PAT1")
    found = trail["audit"].find(_query(search)).sort([(name, 1) for name in _order(search)])
    # The index has no `_id`, so that it is half as large: these few are sorted.
    plan = await found.explain()
    assert "orthancPatientIds_1" in json.dumps(plan["queryPlanner"]["winningPlan"], default=str)
    assert plan["executionStats"]["totalDocsExamined"] == 2


async def test_records_of_earlier_releases_are_found_beside_new_ones(
    trail: AsyncDatabase[dict[str, Any]],
) -> None:
    patient = orthanc_patient_id("PAT1")
    await trail["audit"].insert_one(
        {
            "at": NOW,
            "action": "view",
            "outcome": "ok",
            "correlationID": "0" * 16,
            "orthancPatientIds": [patient],
            "orthancStudyIds": [patient],
            "numberOfObjects": 1,
        }
    )
    records = [one async for one in read_audit(AuditSearch(patient_id="PAT1"))]
    assert len(records) == 3
    assert all(one.orthanc_patient_ids == [patient] for one in records)
    assert records[-1].orthanc_study_ids == [patient]


async def test_records_of_urls_are_found_where_they_share_one_with_a_view(
    database: AsyncDatabase[dict[str, Any]],
) -> None:
    audit = Audit(database)
    for action, urls in ((Action.VIEW, None), (Action.VIEW, 3), (Action.MINT, 1)):
        event = AuditEvent(action=action, principal=BOB, correlation_id="c", minted_urls=urls)
        await audit.record(event)
    assert await found(action=Action.MINT) == ["view", "mint"]
    assert await found(action=Action.VIEW) == ["view", "view"]


async def test_a_record_ends_when_its_retention_does(
    database: AsyncDatabase[dict[str, Any]],
) -> None:
    event = AuditEvent(action=Action.VIEW, principal=BOB, correlation_id="c")
    await Audit(database, retention=timedelta(days=30), now=lambda: NOW).record(event)
    indexes = await database["audit"].index_information()
    assert len(indexes) == 3
    (expiring,) = [index for index in indexes.values() if "expireAfterSeconds" in index]
    assert (expiring["key"], expiring["expireAfterSeconds"]) == ([("expiresAt", 1)], 0)
    (record,) = await AuditRecord.find().to_list()
    assert record.expires_at == NOW + timedelta(days=30)


def test_the_command_prints_one_object_per_line(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, trail: AsyncDatabase[dict[str, Any]]
) -> None:
    assert trail is not None
    give_to_environment(settings, monkeypatch)
    arguments = ["audit", "--since", "2d", "--patient", "PAT1", "--action", "view", "--json"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    (line,) = result.output.splitlines()
    record = json.loads(line)
    assert (record["action"], record["principal"], record["outcome"]) == ("view", "bob", "ok")


def test_the_command_says_that_nothing_was_found(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, trail: AsyncDatabase[dict[str, Any]]
) -> None:
    assert trail is not None
    give_to_environment(settings, monkeypatch)
    result = CliRunner().invoke(main, ["audit", "--patient", "nobody"])
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "No record was found.\n"


def give_to_environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.mongodb_url is not None
    assert settings.orthanc_url is not None
    assert settings.frame_url_keys is not None
    monkeypatch.setenv("MONGODB_URL", settings.mongodb_url.get_secret_value())
    monkeypatch.setenv("MONGODB_DATABASE", settings.mongodb_database)
    monkeypatch.setenv("ORTHANC_URL", settings.orthanc_url)
    monkeypatch.setenv("FRAME_URL_KEYS", settings.frame_url_keys.get_secret_value())
