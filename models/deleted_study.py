"""What was deleted or lost its label lately, for clients that were away at that moment."""

from datetime import datetime
from typing import ClassVar

from pydantic import Field
from pymongo import ASCENDING, IndexModel

from models.stored import NamedDocument, NamedModel

DELETIONS_KEPT_DAYS = 7


class FormerLabel(NamedModel):
    """A label that was removed from a study; callers who saw the study because of it do not now."""

    label: str
    removed_at: datetime


class DeletedStudyDocument(NamedDocument):
    """A study that was deleted, and may have been stored again since; `_id` is the study's."""

    study_instance_uid: str
    labels: list[str] = Field(default_factory=list)
    """The last ones that it had."""
    former_labels: list[FormerLabel] = Field(default_factory=list)
    """Those that were taken from it before."""
    deleted_at: datetime

    class Settings:
        """Collection and indexes."""

        name = "deletedStudies"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel(
                [("deletedAt", ASCENDING)], expireAfterSeconds=DELETIONS_KEPT_DAYS * 24 * 3600
            ),
        ]
