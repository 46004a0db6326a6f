"""Modalities over GraphQL: declared, mirrored to Orthanc, tried and searched."""

import io
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pynetdicom import AE

from graph.schema import build_schema
from services.auth.roles import Principal, Role
from services.auth.scope import Scope
from services.embedded.orthanc import EmbeddedOrthanc
from services.embedded.ports import find_free_port
from services.ingest.service import SentFile
from services.runtime import Runtime, open_runtime
from services.settings import Settings
from services.tasks import finish_in_thread
from tests.real.modality_stage import Archive, running, running_archive, until_open
from tests.real.query_stage import QueryStage
from tests.real.sync_stage import instance_bytes, modality_client

DECLARE = """mutation ($name: String!, $aeTitle: String!, $host: String!, $port: Int!) {
  declareModality(name: $name, aeTitle: $aeTitle, host: $host, port: $port, timeoutSeconds: 5,
                  allows: [ECHO, FIND, MOVE, STORE]) {
    id name aeTitle address description allows retrieveMethod timeoutSeconds
    lastEcho { succeeded }
  }
}"""
ECHO = """mutation ($name: String!) {
  echoModality(name: $name) { succeeded error { code message dimseStatus } }
}"""
STUDIES = """query ($modality: String!, $filter: RemoteFilter!, $first: Int! = 100) {
  remoteStudies(modality: $modality, filter: $filter, first: $first) {
    isIncomplete
    nodes {
      studyInstanceUID patientID patientName patientDisplayName numberOfInstances
      study { studyInstanceUID numberOfInstances }
      series { modality numberOfInstances }
    }
  }
}"""

UPLOADER = Principal("up", Role.UPLOADER)


@pytest.fixture(scope="session")
async def archive(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Archive]:
    files = [
        instance_bytes(study, series, number, patient=f"P{study}")
        for study in (1, 2, 3)
        for series in (1, 2)
        for number in (1, 2)
    ]
    async with running_archive(tmp_path_factory.mktemp("archive"), files) as running:
        yield running


@pytest.fixture
def stage(runtime: Runtime) -> QueryStage:
    return QueryStage(runtime, build_schema(runtime.settings))


async def declare(stage: QueryStage, archive: Archive, name: str = "pacs") -> dict[str, Any]:
    data = await stage.data(
        DECLARE, name=name, aeTitle=archive.ae_title, host=archive.host, port=archive.port
    )
    modality: dict[str, Any] = data["declareModality"]
    return modality


async def test_a_modality_is_declared_kept_and_mirrored_to_orthanc(
    stage: QueryStage, archive: Archive, settings: Settings, orthanc: EmbeddedOrthanc
) -> None:
    declared = await declare(stage, archive)
    assert declared | {"id": ""} == {
        "id": "",
        "name": "pacs",
        "aeTitle": "ARCHIVE",
        "address": f"127.0.0.1:{archive.port}",
        "description": None,
        "allows": ["ECHO", "FIND", "MOVE", "STORE"],
        "retrieveMethod": "AUTO",
        "timeoutSeconds": 5,
        "lastEcho": None,
    }
    async with modality_client(orthanc) as http:
        mirrored = (await http.get("/modalities?expand")).json()["pacs"]
        assert (mirrored["AET"], mirrored["Host"], mirrored["Port"]) == (
            "ARCHIVE", "127.0.0.1", archive.port,
        )  # fmt: skip
        assert (mirrored["AllowStore"], mirrored["AllowFindWorklist"]) == (True, False)
        # An Orthanc that forgot it, as after a restart, gets it again.
        await http.delete("/modalities/pacs")
        async with open_runtime(settings) as again:
            await again.modalities.mirror()
            assert [one.id for one in await again.modalities.read_all()] == ["pacs"]
        assert "pacs" in (await http.get("/modalities")).json()
        found = await stage.data('{ modality(name: "pacs") { name } modalities { name address } }')
        assert found["modality"] == {"name": "pacs"}
        node = await stage.data(
            "query ($id: ID!) { node(id: $id) { ... on Modality { name } } }", id=declared["id"]
        )
        assert node == {"node": {"name": "pacs"}}
        removed = await stage.data('mutation { removeModality(name: "pacs") }')
        assert removed == {"removeModality": True}
        assert "pacs" not in (await http.get("/modalities")).json()
    assert await stage.data("{ modalities { name } }") == {"modalities": []}
    again_removed = await stage.data('mutation { removeModality(name: "pacs") }')
    assert again_removed == {"removeModality": False}


async def test_an_echo_says_what_to_look_at(stage: QueryStage, archive: Archive) -> None:
    await declare(stage, archive)
    assert await stage.data(ECHO, name="pacs") == {
        "echoModality": {"succeeded": True, "error": None}
    }
    await declare(stage, replace(archive, ae_title="OTHER"))
    data = await stage.data(ECHO, name="pacs", principal=UPLOADER)
    error = data["echoModality"]["error"]
    assert (data["echoModality"]["succeeded"], error["code"]) == (False, "MODALITY_REJECTED")
    await declare(stage, replace(archive, port=1))
    data = await stage.data(ECHO, name="pacs")
    assert data["echoModality"]["error"]["code"] == "MODALITY_UNREACHABLE"
    kept = await stage.data('{ modality(name: "pacs") { lastEcho { error { code } } } }')
    assert kept["modality"]["lastEcho"] == {"error": {"code": "MODALITY_UNREACHABLE"}}
    _, codes = await stage.run(ECHO, name="nobody")
    assert codes == ["NOT_FOUND"]
    encrypted = DECLARE.replace("timeoutSeconds: 5,", "useTls: true,")
    _, codes = await stage.run(encrypted, name="pacs", aeTitle="PACS", host="pacs", port=104)
    assert codes == ["INVALID_INPUT"]


async def test_studies_are_found_with_their_series_and_what_is_here(
    stage: QueryStage, runtime: Runtime, archive: Archive
) -> None:
    await declare(stage, archive)
    content = instance_bytes(2, 1, 1, patient="P2")
    await runtime.ingest.store([SentFile("one.dcm", lambda: io.BytesIO(content))])
    data = await stage.data(STUDIES, modality="pacs", filter={"patientID": "P*"})
    found = data["remoteStudies"]
    assert not found["isIncomplete"]
    by_patient = {study["patientID"]: study for study in found["nodes"]}
    assert by_patient.keys() == {"P1", "P2", "P3"}
    assert by_patient["P1"] == {
        "studyInstanceUID": "1.2.826.0.1.3680043.8.498.1",
        "patientID": "P1",
        "patientName": "CompressedSamples^CT1",
        "patientDisplayName": "CT1 CompressedSamples",
        # dcmqrscp does not count.
        "numberOfInstances": None,
        "study": None,
        "series": [{"modality": "CT", "numberOfInstances": None}] * 2,
    }
    assert by_patient["P2"]["study"] == {
        "studyInstanceUID": "1.2.826.0.1.3680043.8.498.2",
        "numberOfInstances": 1,
    }
    cut = await stage.data(STUDIES, modality="pacs", filter={"patientID": "P*"}, first=2)
    assert cut["remoteStudies"]["isIncomplete"]
    assert len(cut["remoteStudies"]["nodes"]) == 2


async def test_a_search_elsewhere_is_in_the_audit_trail(
    stage: QueryStage, archive: Archive
) -> None:
    await declare(stage, archive)
    query = """{ remotePatients(modality: "pacs", filter: {patientID: "P1"}) { patientID } }"""
    data = await stage.data(query, principal=UPLOADER)
    assert data == {"remotePatients": [{"patientID": "P1"}]}
    record = await stage.runtime.database["audit"].find_one({"action": "query"})
    assert record is not None
    assert (record["principal"], record["outcome"]) == ("up", "ok")
    assert record["detail"] == "remotePatients pacs"
    assert record["searched"] == 'remotePatients {"filter":{"patientID":"P1"}}'


WORKLIST = """query ($filter: WorklistFilter!) {
  remoteWorklist(modality: "ris", filter: $filter) {
    accessionNumber patientID patientName modality scheduledStationAETitle tags
    scheduledProcedureStepStartDate scheduledProcedureStepStartTime
  }
}"""


async def test_another_worklist_is_searched(stage: QueryStage, tmp_path: Path) -> None:
    folder = tmp_path / "RIS"
    folder.mkdir()
    (folder / "lockfile").touch()
    for number, modality in ((1, "CT"), (2, "MR")):
        planned(number, modality).save_as(folder / f"{number}.wl", enforce_file_format=True)
    port = find_free_port()
    async with running("/usr/bin/wlmscpfs", "-dfr", "-dfp", str(tmp_path), str(port)):
        await until_open(port)
        await stage.data(
            """mutation ($port: Int!) { declareModality(
              name: "ris", aeTitle: "RIS", host: "127.0.0.1", port: $port, allows: [FIND_WORKLIST]
            ) { name } }""",
            port=port,
        )
        found = await stage.data(WORKLIST, filter={"modalities": ["CT"]})
        both = await stage.data(WORKLIST, filter={}, principal=UPLOADER)
        _, codes = await stage.run(WORKLIST, filter={"statuses": ["SCHEDULED"]})
        _, without = await stage.run(STUDIES, modality="ris", filter={"patientID": "P1"})
    [entry] = found["remoteWorklist"]
    tags = entry.pop("tags")
    assert entry == {
        "accessionNumber": "A1",
        "patientID": "P1",
        "patientName": "Müller^Jörg",
        "modality": "CT",
        "scheduledStationAETitle": "CT1",
        "scheduledProcedureStepStartDate": "2026-03-31",
        "scheduledProcedureStepStartTime": "08:30:00",
    }
    assert tags["ScheduledProcedureStepSequence"][0]["Modality"] == "CT"
    assert len(both["remoteWorklist"]) == 2
    assert (codes, without) == (["INVALID_INPUT"], ["MODALITY_UNSUPPORTED"])


def planned(number: int, modality: str) -> Dataset:
    """Make an entry of a worklist."""
    step = Dataset()
    step.Modality = modality
    step.ScheduledStationAETitle = f"{modality}1"
    step.ScheduledProcedureStepStartDate = "20260331"
    step.ScheduledProcedureStepStartTime = "083000"
    step.ScheduledPerformingPhysicianName = ""
    step.ScheduledProcedureStepDescription = ""
    step.ScheduledStationName = ""
    step.ScheduledProcedureStepLocation = ""
    step.ScheduledProcedureStepID = "S"
    entry = Dataset()
    entry.SpecificCharacterSet = "ISO_IR 192"
    entry.AccessionNumber = f"A{number}"
    entry.PatientID = f"P{number}"
    entry.PatientName = "Müller^Jörg"
    entry.StudyInstanceUID = f"1.2.{number}"
    entry.RequestedProcedureID = "R"
    entry.RequestedProcedureDescription = ""
    entry.ScheduledProcedureStepSequence = [step]
    entry.file_meta = FileMetaDataset()
    entry.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.31")
    entry.file_meta.MediaStorageSOPInstanceUID = UID(f"1.2.3.{number}")
    entry.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return entry


async def test_a_stranger_may_not_store(stage: QueryStage) -> None:
    listener = await stage.runtime.modalities.listener()
    assert listener.port is not None
    port = listener.port

    def stored() -> bool:
        entity = AE(ae_title="STRANGER")
        dataset = pydicom.dcmread(io.BytesIO(instance_bytes(9, 1, 1)))
        entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
        association = entity.associate("127.0.0.1", port)
        if not association.is_established:
            return False
        status = association.send_c_store(dataset)
        if association.is_established:
            association.release()
        return bool(status.get("Status") == 0)

    assert not await finish_in_thread(stored)


async def test_who_is_limited_to_some_studies_asks_nobody(
    stage: QueryStage, archive: Archive
) -> None:
    await declare(stage, archive)
    limited = Principal("up", Role.UPLOADER, scope=Scope(labels=frozenset({"ward"})))
    assert await stage.data("{ modalities { name } }", principal=limited) == {"modalities": []}
    _, codes = await stage.run(
        STUDIES, principal=limited, modality="pacs", filter={"patientID": "P1"}
    )
    assert codes == ["FORBIDDEN"]
    _, codes = await stage.run(ECHO, principal=limited, name="pacs")
    assert codes == ["FORBIDDEN"]
    data = await stage.data("{ modalities { address } }", principal=UPLOADER)
    assert data == {"modalities": [{"address": None}]}


async def test_the_server_says_where_it_listens(stage: QueryStage) -> None:
    query = "{ server { dicom { aeTitle isWorklistServed } orthancCapabilities } }"
    data = await stage.data(query)
    assert data["server"]["dicom"] == {"aeTitle": "ORTHANC", "isWorklistServed": False}
    limited = Principal("v", Role.VIEWER, scope=Scope(labels=frozenset({"ward"})))
    data = await stage.data(query, principal=limited)
    assert data["server"] == {"dicom": None, "orthancCapabilities": []}
