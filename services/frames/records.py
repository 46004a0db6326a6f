"""Reads and writes of MongoDB for frames: instances, and the deaths of the quarantine."""

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

from beanie import SortDirection
from pymongo import ReturnDocument

from models import InstanceDocument
from models.instance import INSTANCE_ORDER
from models.quarantine import SuspectFrameDocument
from services.database import translated_database_faults
from services.frames.instances import RenderableInstance

_IDS_AT_ONCE = 1_000
"""An answer is decoded and gone through in one turn of the event loop: 16 MB of ids, which MongoDB
would send, take it for a second."""


async def find_instance(instance_id: str) -> InstanceDocument | None:
    """Return an instance by Orthanc's identifier.

    Raises:
        DatabaseUnavailable: MongoDB does not answer.
    """
    with translated_database_faults():
        # Every cold frame waits for this: Beanie's own way to it takes 0.3 ms longer.
        found = await InstanceDocument.get_pymongo_collection().find_one({"_id": instance_id})
    return None if found is None else InstanceDocument.model_validate(found)


async def find_following(instance: RenderableInstance, limit: int) -> list[InstanceDocument]:
    """Return the instances after one in its series, by instance number and SOPInstanceUID.

    Args:
        instance: Where to begin; it is not returned.
        limit: Most instances.

    Raises:
        DatabaseUnavailable: MongoDB does not answer.
    """
    series: dict[str, Any] = {"orthancSeriesId": instance.orthanc_series_id}
    if instance.instance_number is not None:
        series["instanceNumber"] = {"$gte": instance.instance_number}
    with translated_database_faults():
        found = await (
            InstanceDocument.find(series)
            .sort([(name, SortDirection(way)) for name, way in INSTANCE_ORDER.items()])
            .limit(limit + 1)
            .to_list()
        )
    ids = [document.id for document in found]
    # Beyond many of one number, or after a removal, it is not among them: nothing follows.
    return found[ids.index(instance.id) + 1 :] if instance.id in ids else []


async def all_instance_ids() -> AsyncIterator[str]:
    """Yield Orthanc's identifiers of all instances, read from the index alone.

    Raises:
        DatabaseUnavailable: MongoDB does not answer.
    """
    collection = InstanceDocument.get_pymongo_collection()
    found = collection.find({}, {"_id": 1}, batch_size=_IDS_AT_ONCE).hint([("_id", 1)])
    with translated_database_faults():
        async for document in found:
            yield document["_id"]


class StoredDeathRecords:
    """`DeathRecords` in MongoDB; one atomic command each."""

    async def load(self) -> Mapping[str, int]:
        """Return all deaths; few frames ever have one."""
        with translated_database_faults():
            documents = await SuspectFrameDocument.find_all().to_list()
        return {document.id: document.deaths for document in documents}

    async def add(self, frame: str) -> int:
        """Count a death."""
        with translated_database_faults():
            stored = await SuspectFrameDocument.get_pymongo_collection().find_one_and_update(
                {"_id": frame},
                {"$inc": {"deaths": 1}, "$set": {"lastDeathAt": datetime.now(UTC)}},
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
        # An upsert that returns the document after it always returns one.
        return int(stored["deaths"]) if stored else 1

    async def remove(self, frame: str) -> None:
        """Forget a frame."""
        with translated_database_faults():
            await SuspectFrameDocument.get_pymongo_collection().delete_one({"_id": frame})
