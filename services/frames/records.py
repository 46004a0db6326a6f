"""Reads and writes of MongoDB for frames: instances, and the deaths of the quarantine."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

from pymongo import ReturnDocument
from pymongo.errors import PyMongoError

from models import InstanceDocument
from models.quarantine import SuspectFrameDocument
from services.errors import DatabaseUnavailable


async def find_instance(instance_id: str) -> InstanceDocument | None:
    """Return an instance by Orthanc's identifier.

    Raises:
        DatabaseUnavailable: MongoDB does not answer.
    """
    with _translated():
        return await InstanceDocument.get(instance_id)


class StoredDeathRecords:
    """`DeathRecords` in MongoDB; one atomic command each."""

    async def load(self) -> Mapping[str, int]:
        """Return all deaths; few frames ever have one."""
        with _translated():
            documents = await SuspectFrameDocument.find_all().to_list()
        return {document.id: document.deaths for document in documents}

    async def add(self, frame: str) -> int:
        """Count a death."""
        with _translated():
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
        with _translated():
            await SuspectFrameDocument.get_pymongo_collection().delete_one({"_id": frame})


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except PyMongoError as exc:
        raise DatabaseUnavailable(detail=type(exc).__name__) from exc
