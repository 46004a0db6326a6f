"""Webhooks: what is to be delivered."""

from datetime import datetime
from typing import ClassVar

from pymongo import ASCENDING, IndexModel

from models.stored import NamedDocument


class WebhookDeliveryDocument(NamedDocument):
    """One event for one receiver, until it is delivered or given up.

    `_id` is receiver, study and `change` or `stable`: a study has at most two for a receiver, and
    what happens while one waits is merged into it.
    """

    receiver: str
    """Digest of the URL."""
    kind: str
    """`created`, `updated`, `stable` or `deleted`."""
    orthanc_study_id: str
    study_instance_uid: str
    version: str
    """Digest of `_id` and of the moment of the last change that was merged into it: what is merged
    during a delivery stays, and another process that finds the same change gives it the same."""
    due_at: datetime
    attempts: int = 0
    queued_at: datetime
    """When the first of the merged events happened, as far as this process knows."""

    class Settings:
        """Collection and indexes."""

        name = "webhookDeliveries"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("receiver", ASCENDING), ("dueAt", ASCENDING)]),
        ]
