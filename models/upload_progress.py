"""The progress of uploads, for their senders."""

from datetime import datetime
from typing import ClassVar

from pymongo import ASCENDING, IndexModel

from models.stored import NamedDocument


class UploadProgressDocument(NamedDocument):
    """Files of one upload, in all its requests; `_id` is its identifier, `:` and its sender's name.

    MongoDB drops it at `expires_at`.
    """

    received: int = 0
    checked: int = 0
    stored: int = 0
    failed: int = 0
    expires_at: datetime

    class Settings:
        """Collection and indexes."""

        name = "uploadProgress"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=0),
        ]
