"""The worklist in GraphQL: who may do what, what is stored, and what the trail says."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from models import AuditRecord
from services.auth.roles import Principal, Role
from services.auth.scope import Scope
from services.embedded.mongod import EmbeddedMongod
from services.orthanc.identifiers import orthanc_ids, orthanc_patient_id
from services.worklist.arrivals import WorklistArrivals
from services.worklist.folder import WorklistFolder
from tests.real.query_stage import QueryStage, open_query_stage

UPLOADER = Principal("ann", Role.UPLOADER)
VIEWER = Principal("vic", Role.VIEWER)
WARD = replace(UPLOADER, scope=Scope(labels=frozenset({"ward 3"})))

FIELDS = """id status accessionNumber patientID issuerOfPatientID patientName
  patientDisplayName patientBirthDate patientSex studyInstanceUID referringPhysicianName
  requestedProcedureID
  requestedProcedureDescription modality scheduledStationAETitle scheduledProcedureStepID
  scheduledProcedureStepStartDate scheduledProcedureStepStartTime
  scheduledProcedureStepDescription scheduledPerformingPhysicianName
  study { studyInstanceUID } createdAt updatedAt"""
CREATE = f"mutation ($i: WorklistEntryInput!) {{ createWorklistEntry(input: $i) {{ {FIELDS} }} }}"
UPDATE = f"""mutation ($id: ID!, $i: WorklistEntryInput!) {{
  updateWorklistEntry(id: $id, input: $i) {{ {FIELDS} }} }}"""
STATUS = f"""mutation ($id: ID!, $s: WorklistStatus!) {{
  setWorklistStatus(id: $id, status: $s) {{ {FIELDS} }} }}"""
DELETE = "mutation ($id: ID!) { deleteWorklistEntry(id: $id) }"
LIST = f"""query ($f: WorklistFilter, $first: Int! = 20, $after: String) {{
  worklist(filter: $f, first: $first, after: $after) {{
    nodes {{ {FIELDS} }} edges {{ cursor }} totalCount
    pageInfo {{ hasNextPage hasPreviousPage endCursor }} }} }}"""
NODE = f"query ($id: ID!) {{ node(id: $id) {{ __typename ... on WorklistEntry {{ {FIELDS} }} }} }}"

MINIMAL: dict[str, Any] = {
    "accessionNumber": "A1",
    "patientID": "P1",
    "patientName": "Huber^Anna",
    "modality": "CT",
    "scheduledProcedureStepStartDate": "2026-03-31",
}
FULL: dict[str, Any] = MINIMAL | {
    "issuerOfPatientID": "HOSPITAL",
    "patientBirthDate": "1960-02-03",
    "patientSex": "F",
    "studyInstanceUID": "1.2.3",
    "referringPhysicianName": "Arzt",
    "requestedProcedureID": "RP1",
    "requestedProcedureDescription": "Kopf",
    "scheduledStationAETitle": "CT1",
    "scheduledProcedureStepID": "SP1",
    "scheduledProcedureStepStartTime": "08:30:00",
    "scheduledProcedureStepDescription": "nativ",
    "scheduledPerformingPhysicianName": "Strahler",
}


@pytest.fixture(scope="module")
async def opened(
    mongodb: EmbeddedMongod, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[QueryStage]:
    async with open_query_stage(mongodb, tmp_path_factory.mktemp("worklist")) as stage:
        yield stage


@pytest.fixture
async def stage(opened: QueryStage) -> QueryStage:
    await opened.runtime.audit.flush()
    for name in ("worklist", "studies", "audit"):
        await opened.runtime.database[name].delete_many({})
    return opened


async def create(stage: QueryStage, **fields: Any) -> dict[str, Any]:
    data = await stage.data(CREATE, principal=UPLOADER, i=MINIMAL | fields)
    created: dict[str, Any] = data["createWorklistEntry"]
    return created


async def listed(stage: QueryStage, **filter_: Any) -> list[str]:
    data = await stage.data(LIST, principal=VIEWER, f=filter_)
    return [one["accessionNumber"] for one in data["worklist"]["nodes"]]


async def test_an_entry_is_made_found_changed_and_deleted(stage: QueryStage) -> None:
    data = await stage.data(CREATE, principal=UPLOADER, i=FULL)
    made = data["createWorklistEntry"]
    expected = FULL | {
        "id": made["id"],
        "status": "SCHEDULED",
        "patientDisplayName": "Anna Huber",
        "study": None,
        "createdAt": made["createdAt"],
        "updatedAt": made["createdAt"],
    }
    assert made == expected
    found = await stage.data(NODE, principal=VIEWER, id=made["id"])
    assert found["node"] == {"__typename": "WorklistEntry", **expected}

    data = await stage.data(UPDATE, principal=UPLOADER, id=made["id"], i=MINIMAL)
    changed = data["updateWorklistEntry"]
    kept = ("studyInstanceUID", "requestedProcedureID", "scheduledProcedureStepID")
    assert changed == {
        **dict.fromkeys(FULL),
        **MINIMAL,
        **{name: FULL[name] for name in kept},
        "id": made["id"],
        "status": "SCHEDULED",
        "patientDisplayName": "Anna Huber",
        "study": None,
        "createdAt": made["createdAt"],
        "updatedAt": changed["updatedAt"],
    }
    assert changed["updatedAt"] > made["updatedAt"]
    assert (await stage.data(NODE, principal=VIEWER, id=made["id"]))["node"]["patientSex"] is None

    assert await stage.data(DELETE, principal=UPLOADER, id=made["id"]) == {
        "deleteWorklistEntry": True
    }
    assert await stage.data(DELETE, principal=UPLOADER, id=made["id"]) == {
        "deleteWorklistEntry": False
    }
    assert await stage.data(NODE, principal=VIEWER, id=made["id"]) == {"node": None}


async def test_every_change_is_in_the_trail_without_patient_data(stage: QueryStage) -> None:
    made = await create(stage)
    entry_id = (await stage.runtime.database["worklist"].find_one({}) or {})["_id"]
    await stage.data(UPDATE, principal=UPLOADER, id=made["id"], i=MINIMAL)
    await stage.data(STATUS, principal=UPLOADER, id=made["id"], s="IN_PROGRESS")
    await stage.run(UPDATE, principal=UPLOADER, id=made["id"], i=MINIMAL | {"modality": "?"})
    await stage.data(DELETE, principal=UPLOADER, id=made["id"])
    await stage.runtime.audit.flush()
    records = await AuditRecord.find({"action": "worklist"}).to_list()
    patient = [orthanc_patient_id("P1")]
    assert [(one.detail, one.outcome, one.orthanc_patient_ids) for one in records] == [
        (f"createWorklistEntry {entry_id}", "ok", patient),
        (f"updateWorklistEntry {entry_id}", "ok", patient),
        (f"setWorklistStatus {entry_id} IN_PROGRESS", "ok", patient),
        (f"updateWorklistEntry {entry_id}", "INVALID_INPUT", []),
        (f"deleteWorklistEntry {entry_id}", "ok", patient),
    ]


async def test_who_looks_is_in_the_trail(stage: QueryStage) -> None:
    made = await create(stage)
    await stage.runtime.audit.flush()
    await stage.data(LIST, principal=VIEWER, f={"patientID": "P1"})
    await stage.data(NODE, principal=VIEWER, id=made["id"])
    await stage.runtime.audit.flush()
    records = await AuditRecord.find({"action": "view"}).to_list()
    assert [(one.searched, one.orthanc_patient_ids) for one in records] == [
        ('worklist {"filter":{"patientID":"P1"}}', [orthanc_patient_id("P1")]),
        (f'node {{"id":"{made["id"]}"}}', [orthanc_patient_id("P1")]),
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"accessionNumber": " "},
        {"patientName": "x" * 65},
        {"scheduledStationAETitle": "a\\b"},
        {"scheduledProcedureStepStartDate": "31.03.2026"},
        {"scheduledProcedureStepStartTime": "25:00"},
        {"scheduledProcedureStepStartTime": "08:30:00+01:00"},
        {"patientBirthDate": "1960-02-30"},
    ],
)
async def test_what_dicom_does_not_allow_is_refused_and_not_stored(
    stage: QueryStage, changes: dict[str, Any]
) -> None:
    data, _ = await stage.run(CREATE, principal=UPLOADER, i=MINIMAL | changes)
    assert data is None
    assert await stage.runtime.database["worklist"].count_documents({}) == 0


async def test_identifiers_of_another_patient_are_refused(stage: QueryStage) -> None:
    await stage.store_study("P9", 9)
    await create(
        stage, studyInstanceUID="1.2.3", scheduledProcedureStepID="SP1", issuerOfPatientID="US"
    )
    other = MINIMAL | {"patientID": "P2"}
    for wrong in (
        other,
        other | {"accessionNumber": "A2", "studyInstanceUID": "1.2.3"},
        other | {"accessionNumber": "A2", "studyInstanceUID": "1.2.9"},
        # Of the same PatientID, and of another issuer.
        MINIMAL | {"issuerOfPatientID": "THEM", "scheduledProcedureStepID": "SP3"},
        MINIMAL | {"scheduledProcedureStepID": "SP1"},
    ):
        result = await stage.run(CREATE, principal=UPLOADER, i=wrong)
        assert result == (None, ["INVALID_INPUT"]), wrong
    assert await stage.runtime.database["worklist"].count_documents({}) == 1
    # Two steps of one study of one patient.
    await create(stage, studyInstanceUID="1.2.3", scheduledProcedureStepID="SP2", modality="PT")
    # The accession number of an examination that is done may come again.
    await stage.runtime.database["worklist"].update_many({}, {"$set": {"status": "COMPLETED"}})
    await create(stage, patientID="P2")


async def test_a_closed_entry_is_opened_before_it_is_changed(stage: QueryStage) -> None:
    made = await create(stage)
    for status in ("COMPLETED", "DISCONTINUED"):
        data = await stage.data(STATUS, principal=UPLOADER, id=made["id"], s=status)
        assert data["setWorklistStatus"]["status"] == status
        result = await stage.run(UPDATE, principal=UPLOADER, id=made["id"], i=MINIMAL)
        assert result == (None, ["INVALID_INPUT"])
    await stage.data(STATUS, principal=UPLOADER, id=made["id"], s="SCHEDULED")
    await stage.data(UPDATE, principal=UPLOADER, id=made["id"], i=MINIMAL | {"patientSex": "O"})


async def test_an_entry_that_is_not_there_is_not_found(stage: QueryStage) -> None:
    made = await create(stage)
    await stage.data(DELETE, principal=UPLOADER, id=made["id"])
    for mutation, more in ((UPDATE, {"i": MINIMAL}), (STATUS, {"s": "COMPLETED"})):
        result = await stage.run(mutation, principal=UPLOADER, id=made["id"], **more)
        assert result == (None, ["NOT_FOUND"])
    result = await stage.run(DELETE, principal=UPLOADER, id="nonsense")
    assert result == (None, ["INVALID_INPUT"])


async def test_changes_at_the_same_time_lose_nothing(stage: QueryStage) -> None:
    made = await create(stage)
    await asyncio.gather(
        stage.data(UPDATE, principal=UPLOADER, id=made["id"], i=MINIMAL | {"patientSex": "O"}),
        stage.data(STATUS, principal=UPLOADER, id=made["id"], s="IN_PROGRESS"),
    )
    found = (await stage.data(NODE, principal=VIEWER, id=made["id"]))["node"]
    assert (found["patientSex"], found["status"]) == ("O", "IN_PROGRESS")


async def test_the_list_is_filtered_and_comes_in_pages(stage: QueryStage) -> None:
    day, time = "scheduledProcedureStepStartDate", "scheduledProcedureStepStartTime"
    await create(stage, accessionNumber="late", **{day: "2026-04-01", time: "16:00:00"})
    await create(stage, accessionNumber="early", **{day: "2026-04-01", time: "08:00:00"})
    await create(stage, accessionNumber="untimed", modality="MR", **{day: "2026-04-01"})
    await create(stage, accessionNumber="before", scheduledStationAETitle="CT1")
    done = await create(stage, accessionNumber="after", patientID="P2", **{day: "2026-04-02"})
    await stage.data(STATUS, principal=UPLOADER, id=done["id"], s="COMPLETED")
    assert await listed(stage) == ["before", "untimed", "early", "late", "after"]
    for filter_, expected in (
        ({day: {"from": "2026-04-01", "to": "2026-04-01"}}, ["untimed", "early", "late"]),
        ({day: {"from": "2026-04-02"}}, ["after"]),
        ({"statuses": ["SCHEDULED", "IN_PROGRESS"], "modalities": ["mr"]}, ["untimed"]),
        ({"statuses": ["COMPLETED"]}, ["after"]),
        ({"statuses": []}, []),
        ({"modalities": []}, []),
        ({"patientID": " P2 "}, ["after"]),
        ({"accessionNumber": "early"}, ["early"]),
        ({"scheduledStationAETitle": "CT1"}, ["before"]),
        ({"scheduledStationAETitle": "CT1", "patientID": "P2"}, []),
    ):
        assert await listed(stage, **filter_) == expected, filter_
        asked = await stage.asked(LIST, principal=VIEWER, f=filter_)
        plans = {one.plan.split(" ")[0] for one in asked if one.collection == "worklist"}
        assert plans <= {"IXSCAN", "COUNT_SCAN", "EOF"}, filter_

    seen, after = [], None
    for _ in range(3):
        data = await stage.data(LIST, principal=VIEWER, first=2, after=after)
        page = data["worklist"]
        assert page["totalCount"] == 5
        seen += [one["accessionNumber"] for one in page["nodes"]]
        after = page["pageInfo"]["endCursor"]
    assert seen == ["before", "untimed", "early", "late", "after"]
    assert page["pageInfo"]["hasNextPage"] is False


async def test_who_is_limited_to_some_studies_sees_and_plans_nothing(stage: QueryStage) -> None:
    made = await create(stage)
    data = await stage.data(LIST, principal=WARD)
    assert data["worklist"]["nodes"] == []
    assert data["worklist"]["totalCount"] == 0
    assert await stage.data(NODE, principal=WARD, id=made["id"]) == {"node": None}
    for mutation, more in (
        (CREATE, {"i": MINIMAL}),
        (UPDATE, {"id": made["id"], "i": MINIMAL}),
        (STATUS, {"id": made["id"], "s": "COMPLETED"}),
        (DELETE, {"id": made["id"]}),
    ):
        assert await stage.run(mutation, principal=WARD, **more) == (None, ["FORBIDDEN"])
    stored = await stage.runtime.database["worklist"].find({}).to_list()
    assert [one["status"] for one in stored] == ["SCHEDULED"]


async def test_the_study_is_shown_as_soon_as_its_first_image_is_there(stage: QueryStage) -> None:
    made = await create(stage, studyInstanceUID="1.2.1")
    await stage.store_study("P1", 1)
    studies = stage.runtime.database["studies"]
    stored = await studies.find_one_and_delete({})
    assert stored is not None
    await studies.insert_one(stored | {"_id": orthanc_ids("P1", "1.2.1", "", "").study})
    found = await stage.data(NODE, principal=VIEWER, id=made["id"])
    assert found["node"]["study"] == {"studyInstanceUID": "1.2.1"}
    assert found["node"]["status"] == "SCHEDULED"


async def test_a_copy_that_was_made_here_completes_nothing(stage: QueryStage) -> None:
    await create(stage)
    database, later = stage.runtime.database, datetime.now(UTC) + timedelta(hours=1)
    await database["studies"].insert_one({
        "_id": "s", "patientID": "P1", "studyInstanceUID": "9.9", "accessionNumbers": ["A1"],
        "modalitiesInStudy": ["CT"], "updatedAt": later, "latestIndexedAt": later,
    })  # fmt: skip
    copies = database["studyCopies"]
    await copies.insert_one({"_id": "s", "origin": "MODIFIED"})
    arrivals = WorklistArrivals(
        database, stable_seconds=0, on_changed=None, now=lambda: later + timedelta(seconds=1)
    )
    for status in ("SCHEDULED", "COMPLETED"):
        await arrivals.complete(None)
        stored = await database["worklist"].find_one({})
        assert stored is not None
        assert stored["status"] == status
        await copies.delete_many({})


async def test_the_largest_page_is_limited(stage: QueryStage) -> None:
    assert await stage.run(LIST, principal=VIEWER, first=501) == (None, ["INVALID_INPUT"])


async def test_a_look_at_the_whole_folder_writes_what_changed_as_well(
    stage: QueryStage, tmp_path: Path
) -> None:
    """A scanner must not get the patient of before for a minute, or for good."""
    entry = await create(stage)
    folder = WorklistFolder(stage.runtime.database, tmp_path)
    await folder._write_all()
    await stage.data(
        UPDATE, principal=UPLOADER, id=entry["id"], i=MINIMAL | {"patientName": "Maier^Eva"}
    )
    await folder._write_all()
    assert [b"Maier^Eva" in content for content in contents(tmp_path)] == [True]


def contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.iterdir()]
