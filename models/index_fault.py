"""Instances that Orthanc holds and that could not be indexed."""

from datetime import datetime
from typing import ClassVar

from pymongo import ASCENDING, IndexModel

from models.stored import NamedDocument


class IndexFaultDocument(NamedDocument):
    """An instance that could not be indexed; `_id` is the instance's."""

    revision: str
    """The stored file that failed; another file of the same instance is tried again."""
    reason: str
    attempts: int
    failed_at: datetime
    retry_at: datetime | None = None
    """It is skipped until then; None in records of earlier releases."""

    class Settings:
        """Collection and indexes."""

        name = "indexFaults"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("failedAt", ASCENDING)], expireAfterSeconds=30 * 24 * 3600),
        ]
