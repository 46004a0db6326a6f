"""What one process removes or replaces, another one forgets."""

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pymongo.asynchronous.collection import AsyncCollection

from models import InstanceDocument
from services.runtime import Runtime
from services.settings import Settings
from services.sync.reconciler import following_removals
from services.tasks import Supervisor
from tests.clients import http_client
from tests.patience import PATIENCE_SECONDS
from tests.real.shell import Shell, served
from tests.real.sync_stage import eventually, instance_bytes

_URLS = "{ studies { nodes { series { instances { orthancInstanceId frame { url } } } } } }"


async def test_a_frame_that_another_process_deleted_is_shown_no_more(
    settings: Settings, runtime: Runtime, tmp_path: Path
) -> None:
    """The other process holds the picture in memory."""
    assert runtime.orthanc is not None
    assert runtime.sync is not None
    shell = Shell.on_stores_of(settings, tmp_path / "other")
    async with served(shell) as other, http_client(other.url) as http:
        files = {"file": ("ct.dcm", instance_bytes(1, 1, 1))}
        (await http.post("/api/dicom/upload", files=files)).raise_for_status()
        data = (await http.post("/graphql", json={"query": _URLS})).json()["data"]
        (instance,) = data["studies"]["nodes"][0]["series"][0]["instances"]
        path = urlsplit(instance["frame"]["url"]).path
        assert (await http.get(path)).status_code == 200
        await runtime.orthanc.delete("instances", instance["orthancInstanceId"])
        await runtime.sync.reconciler.reconcile([instance["orthancInstanceId"]])

        async def is_gone() -> bool:
            return (await http.get(path)).status_code == 404

        await eventually(is_gone)


async def test_removals_and_replacements_are_told_and_nothing_else(runtime: Runtime) -> None:
    told: list[str] = []
    instances = runtime.database[InstanceDocument.Settings.name]
    documents = [{"_id": f"{number:04}", "revision": "a"} for number in range(1200)]
    async with following_removals(runtime.database, told.extend, Supervisor()):
        await _until_told(instances, told, "first")
        await instances.insert_many(documents)
        await instances.update_one({"_id": "0000"}, {"$set": {"useOrthancPreview": False}})
        await instances.update_one({"_id": "0001"}, {"$set": {"revision": "b"}})
        await instances.delete_many({"_id": {"$gte": "0002"}})
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(set(told)) < 1200:  # noqa: ASYNC110  # MongoDB tells when it likes
                await asyncio.sleep(0.05)
    assert sorted({*told}) == ["0001", *[f"{n:04}" for n in range(2, 1200)], "first"]


async def test_removals_are_told_again_after_the_collection_was_dropped(runtime: Runtime) -> None:
    told: list[str] = []
    instances = runtime.database[InstanceDocument.Settings.name]
    async with following_removals(runtime.database, told.extend, Supervisor()):
        await _until_told(instances, told, "before")
        await instances.drop()
        await _until_told(instances, told, "after")


async def _until_told(
    instances: AsyncCollection[dict[str, Any]], told: list[str], instance_id: str
) -> None:
    """Replace an instance until that is told: from then on the stream is open."""
    await instances.insert_one({"_id": instance_id, "revision": 0})
    async with asyncio.timeout(PATIENCE_SECONDS):
        while instance_id not in told:
            await instances.update_one({"_id": instance_id}, {"$inc": {"revision": 1}})
            await asyncio.sleep(0.05)
