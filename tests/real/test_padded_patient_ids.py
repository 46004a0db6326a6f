"""Padded forms of a PatientID are one patient, whichever way their files came."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, _config

from services.embedded.mongod import EmbeddedMongod
from services.embedded.orthanc import EmbeddedOrthanc, run_orthanc
from services.embedded.orthanc_configuration import DicomServer
from services.embedded.ports import find_free_port
from services.ingest.service import Ingest, SentFile
from services.orthanc.identifiers import orthanc_patient_id
from services.runtime import Runtime, open_runtime
from services.sync.service import SyncService
from tests.real.sync_stage import instance_bytes
from tests.servers import RunningServer, settings_on

FORMS = ["OVI", " OVI ", "OVI\u00a0", "\u200bOVI", "\u00a0OVI\u200b"]
"""Orthanc makes five patients of them: it strips spaces at the end only."""

OVI = orthanc_patient_id("OVI")
PATIENT = """query ($id: String!) { patient(patientID: $id) {
  id orthancPatientId patientID numberOfStudies
  studies(first: 20) { totalCount nodes { studyInstanceUID patient { id } } }
} }"""
LISTS = """query ($id: String!) {
  patients(filter: {patientID: $id}) { totalCount }
  studies(filter: {patientID: $id}) { totalCount }
}"""


def file_of(number: int, patient_id: str) -> bytes:
    """Make an instance of a study of its own; PatientID as it is given."""
    dataset = pydicom.dcmread(io.BytesIO(instance_bytes(number, 1, 1)))
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientID = patient_id
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


FILES = [file_of(number, form) for number, form in enumerate(FORMS, 1)]


@pytest.fixture(autouse=True)
def _bytes_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pynetdicom send files without reading them first."""
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)


@pytest.fixture
async def modality_port(tmp_path: Path) -> AsyncIterator[tuple[EmbeddedOrthanc, int]]:
    port = find_free_port()
    async with run_orthanc(
        tmp_path / "orthanc", dicom=DicomServer(port, unknown_may_store=True)
    ) as running:
        yield running, port


async def upload(ingest: Ingest, files: list[bytes]) -> None:
    results = await ingest.store(
        [SentFile("ct.dcm", lambda content=content: io.BytesIO(content)) for content in files]  # type: ignore[misc]  # mypy can't infer lambdas with defaults
    )
    assert [result.error for result in results] == [None] * len(files)


@pytest.mark.parametrize("asked", ["OVI", " OVI ", "\u200bOVI\u00a0"])
async def test_a_patient_has_the_studies_of_all_padded_forms(
    server: RunningServer, runtime: Runtime, asked: str
) -> None:
    await upload(runtime.ingest, [*FILES, file_of(9, "OVI2")])
    data: Any = await server.graphql(PATIENT, id=asked)
    node_id = base64.urlsafe_b64encode(f"Patient:{OVI}".encode()).decode()
    studies = data["patient"].pop("studies")
    assert data["patient"] == {
        "id": node_id,
        "orthancPatientId": OVI,
        "patientID": "OVI",
        "numberOfStudies": len(FORMS),
    }
    assert studies["totalCount"] == len(FORMS)
    assert {study["studyInstanceUID"][-1] for study in studies["nodes"]} == set("12345")
    assert [study["patient"] for study in studies["nodes"]] == [{"id": node_id}] * len(FORMS)
    assert await server.graphql(LISTS, id=asked) == {
        "patients": {"totalCount": 1},
        "studies": {"totalCount": len(FORMS)},
    }


async def test_a_patient_is_deleted_with_all_padded_forms(
    server: RunningServer, runtime: Runtime
) -> None:
    await upload(runtime.ingest, [*FILES, file_of(9, "OVI2")])
    assert runtime.orthanc is not None
    assert (await runtime.orthanc.statistics()).patients == 6
    data: Any = await server.graphql('{ patient(patientID: "OVI") { id } }')
    delete = "mutation ($id: ID!) { deletePatient(id: $id) { deletedInstances } }"
    answer = await server.graphql(delete, id=data["patient"]["id"])
    assert answer == {"deletePatient": {"deletedInstances": len(FORMS)}}
    statistics = await runtime.orthanc.statistics()
    assert (statistics.patients, statistics.instances) == (1, 1)
    assert await runtime.database["patients"].distinct("patientID") == ["OVI2"]


async def test_what_comes_by_c_store_belongs_to_the_same_patient(
    mongodb: EmbeddedMongod, modality_port: tuple[EmbeddedOrthanc, int], tmp_path: Path
) -> None:
    orthanc, port = modality_port
    settings = settings_on(mongodb, orthanc, tmp_path)
    async with open_runtime(settings) as runtime:
        try:
            await upload(runtime.ingest, FILES[:2])
            await asyncio.to_thread(_send, port, tmp_path, FILES[2:])
            await _synchronize(runtime.sync)
            assert await _patients(runtime) == [(OVI, "OVI", len(FORMS))]
        finally:
            await runtime.database.client.drop_database(settings.mongodb_database)


async def test_an_index_of_an_earlier_release_is_put_in_order(runtime: Runtime) -> None:
    await upload(runtime.ingest, FILES)
    database, padded = runtime.database, orthanc_patient_id("OVI\u00a0")
    [study_id] = await database["studies"].distinct(
        "_id", {"studyInstanceUID": "1.2.826.0.1.3680043.8.498.3"}
    )
    await database["studies"].update_one(
        {"_id": study_id}, {"$set": {"orthancPatientId": padded, "version": "old"}}
    )
    for collection in ("series", "instances"):
        await database[collection].update_many(
            {"orthancStudyId": study_id}, {"$set": {"orthancPatientId": padded}}
        )
    await database["instances"].update_many({}, {"$set": {"indexVersion": 3}})
    old = await database["patients"].find_one({"_id": OVI})
    assert old is not None
    await database["patients"].insert_one(old | {"_id": padded, "numberOfStudies": 1})
    await _synchronize(runtime.sync)
    assert await _patients(runtime) == [(OVI, "OVI", len(FORMS))]
    assert await database["studies"].distinct("orthancPatientId") == [OVI]


async def _synchronize(sync: SyncService | None) -> None:
    assert sync is not None
    await sync.synchronize()
    assert (await sync.synchronize()).up_to_date


async def _patients(runtime: Runtime) -> list[tuple[str, str, int]]:
    found = await runtime.database["patients"].find({}).to_list()
    return [(one["_id"], one["patientID"], one["numberOfStudies"]) for one in found]


def _send(port: int, folder: Path, files: list[bytes]) -> None:
    """Send files by C-STORE, their bytes as they are."""
    entity = AE()
    entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", port)
    assert association.is_established
    for number, content in enumerate(files):
        path = folder / f"{number}.dcm"
        path.write_bytes(content)
        assert association.send_c_store(path).Status == 0
    association.release()
