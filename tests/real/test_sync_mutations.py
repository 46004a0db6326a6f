"""Deleting and synchronizing over GraphQL, with every count afterwards."""

import base64
import io
from typing import Any

import pytest

from models import AuditRecord
from services.ingest.service import SentFile
from services.orthanc.identifiers import orthanc_ids
from services.runtime import Runtime
from services.settings import Settings
from tests.real.sync_stage import eventually, instance_bytes, modality_client, running
from tests.servers import RunningServer

STUDY = "1.2.826.0.1.3680043.8.498.1"
IDS = orthanc_ids("P1", STUDY, f"{STUDY}.1", f"{STUDY}.1.1")
RESOURCES = {
    "Patient": IDS.patient,
    "Study": IDS.study,
    "Series": IDS.series,
    "Instance": IDS.instance,
}
COUNTS = """{
  patients { totalCount nodes { patientID numberOfStudies } }
  studies {
    nodes { studyInstanceUID numberOfSeries numberOfInstances }
  }
}"""


def node_id(type_name: str, orthanc_id: str) -> str:
    return base64.urlsafe_b64encode(f"{type_name}:{orthanc_id}".encode()).decode()


def deletion_of(type_name: str) -> str:
    return f"mutation ($id: ID!) {{ answer: delete{type_name}(id: $id) {{ deletedInstances }} }}"


@pytest.fixture
async def stored(runtime: Runtime) -> Runtime:
    """P1 with a study of two series (two images and one) and a study of one; P2 with one."""
    files = [
        instance_bytes(1, 1, 1),
        instance_bytes(1, 1, 2),
        instance_bytes(1, 2, 1),
        instance_bytes(2, 1, 1),
        instance_bytes(3, 1, 1, patient="P2"),
    ]
    await runtime.ingest.store(
        [SentFile("ct.dcm", lambda content=content: io.BytesIO(content)) for content in files]  # type: ignore[misc]  # mypy can't infer lambdas with defaults
    )
    return runtime


async def counts(server: RunningServer) -> dict[str, list[tuple[object, ...]]]:
    data: Any = await server.graphql(COUNTS)
    assert data["patients"]["totalCount"] == len(data["patients"]["nodes"])
    return {
        "patients": sorted(tuple(one.values()) for one in data["patients"]["nodes"]),
        "studies": sorted(
            (one["studyInstanceUID"][-1], one["numberOfSeries"], one["numberOfInstances"])
            for one in data["studies"]["nodes"]
        ),
    }


@pytest.mark.parametrize(
    ("type_name", "deleted", "left"),
    [
        ("Patient", 4, ([("P2", 1)], [("3", 1, 1)])),
        ("Study", 3, ([("P1", 1), ("P2", 1)], [("2", 1, 1), ("3", 1, 1)])),
        ("Series", 2, ([("P1", 2), ("P2", 1)], [("1", 1, 1), ("2", 1, 1), ("3", 1, 1)])),
        ("Instance", 1, ([("P1", 2), ("P2", 1)], [("1", 2, 2), ("2", 1, 1), ("3", 1, 1)])),
    ],
)
async def test_deleting_leaves_right_counts_and_again_deletes_nothing(
    server: RunningServer,
    stored: Runtime,
    type_name: str,
    deleted: int,
    left: tuple[list[tuple[str, int]], list[tuple[str, int, int]]],
) -> None:
    target = node_id(type_name, RESOURCES[type_name])
    answers = [await server.graphql(deletion_of(type_name), id=target) for _ in range(2)]
    assert answers == [
        {"answer": {"deletedInstances": deleted}},
        {"answer": {"deletedInstances": 0}},
    ]
    assert await counts(server) == {"patients": left[0], "studies": left[1]}
    assert stored.orthanc is not None
    assert (await stored.orthanc.statistics()).instances == 5 - deleted
    trail = await AuditRecord.find({"action": "delete"}).sort("_id").to_list()
    assert [one.number_of_objects for one in trail] == [deleted, 0]
    # `audit --patient` finds it whatever was deleted.
    assert trail[0].orthanc_patient_ids == [IDS.patient]
    assert IDS.study in trail[0].orthanc_study_ids


@pytest.mark.parametrize(
    ("type_name", "bad_id"),
    [
        ("Study", "no id"),
        ("Study", node_id("Series", IDS.series)),
        ("Study", node_id("Study", "../../patients")),
        ("Instance", node_id("Study", IDS.study)),
        ("Patient", ""),
    ],
)
async def test_a_wrong_id_deletes_nothing(
    server: RunningServer, stored: Runtime, type_name: str, bad_id: str
) -> None:
    response = await server.http.post(
        "/graphql", json={"query": deletion_of(type_name), "variables": {"id": bad_id}}
    )
    [error] = response.json()["errors"]
    assert error["extensions"]["code"] == "INVALID_INPUT"
    assert stored.orthanc is not None
    assert (await stored.orthanc.statistics()).instances == 5
    assert await stored.database["instances"].count_documents({}) == 5


async def test_synchronizing_finds_what_others_stored_and_deleted(
    server: RunningServer, stored: Runtime, settings: Settings
) -> None:
    async with modality_client(settings) as http:
        (await http.delete(f"/studies/{IDS.study}")).raise_for_status()
        (await http.post("/instances", content=instance_bytes(4, 1, 1))).raise_for_status()
    synchronize = "mutation { synchronize { indexed removed upToDate } }"
    assert [await server.graphql(synchronize) for _ in range(2)] == [
        {"synchronize": {"indexed": 1, "removed": 3, "upToDate": False}},
        {"synchronize": {"indexed": 0, "removed": 0, "upToDate": True}},
    ]
    assert await counts(server) == {
        "patients": [("P1", 2), ("P2", 1)],
        "studies": [("2", 1, 1), ("3", 1, 1), ("4", 1, 1)],
    }
    assert await stored.database["audit"].count_documents({"action": "synchronize"}) == 2


async def test_server_and_status_tell_how_far_behind_the_feed_is(
    server: RunningServer, runtime: Runtime, settings: Settings
) -> None:
    query = "{ server { feed { behindSeconds behindChanges isFollowing } } }"
    assert runtime.sync is not None

    async def is_caught_up() -> bool:
        data: Any = await server.graphql(query)
        told = (await server.http.get("/api/status")).json()["feed"]
        expected = {"behindSeconds": 0.0, "behindChanges": 0, "isFollowing": True}
        return bool(told == expected | {"message": None} and data["server"]["feed"] == expected)

    async with modality_client(settings) as http:
        async with running(runtime.sync):
            await eventually(is_caught_up)
        (await http.post("/instances", content=instance_bytes(9, 1, 1))).raise_for_status()
    data: Any = await server.graphql(query)
    behind = data["server"]["feed"]
    # A new instance is four changes at least: patient, study, series and itself.
    assert behind["behindChanges"] >= 4
    assert not behind["isFollowing"]

    async def is_told() -> bool:
        told = (await server.http.get("/api/status")).json()["feed"]
        return bool(told["behindChanges"] == behind["behindChanges"] and not told["isFollowing"])

    # An answer of /api/status lasts a second.
    await eventually(is_told)
