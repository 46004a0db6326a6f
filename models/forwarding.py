"""Rules that send what arrives to a modality, and what they have sent."""

from datetime import datetime
from typing import ClassVar

from pymongo import ASCENDING, IndexModel

from models.stored import NamedDocument


class ForwardingRuleDocument(NamedDocument):
    """A rule; `_id` is its name: 1 to 64 letters, digits, `-` and `_`.

    A study matches when each criterion that is given matches.
    """

    destination: str
    """Name of the modality that studies are sent to."""
    modalities: list[str] | None = None
    """One of the study's modalities is one of these."""
    calling_ae_titles: list[str] | None = None
    """Some of the study came from one of these AE titles."""
    labels: list[str] | None = None
    """The study has one of these labels."""
    study_description: str | None = None
    """Of the study, without case; `*` stands for any characters, `?` for one."""
    commit: bool = False
    """Whether the modality is asked to keep what it gets."""
    created_at: datetime
    updated_at: datetime
    checked_until: datetime
    """Studies that became stable until then have been looked at."""

    class Settings:
        """Collection: a few documents, always read as a whole."""

        name = "forwardingRules"
        indexes: ClassVar[list[IndexModel]] = []


class ForwardedStudyDocument(NamedDocument):
    """What a rule has sent of a study; `_id` is `rule/destination/study`."""

    rule: str
    latest_indexed_at: datetime | None = None
    """The newest instance of the study when its last job was started."""
    sent: bytes = b""
    """Marks of the instances that were sent, see `services.modalities.send`."""
    expires_at: datetime

    class Settings:
        """Collection and indexes."""

        name = "forwardedStudies"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("rule", ASCENDING)]),
            IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=0),
        ]
