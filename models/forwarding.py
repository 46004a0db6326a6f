"""Rules that send what arrives to a modality, and what they have sent."""

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from pydantic import Field
from pymongo import ASCENDING, IndexModel

from models.stored import NamedDocument


class StudyOrigin(StrEnum):
    """How a study came into the archive."""

    RECEIVED = "RECEIVED"
    """From outside: sent, fetched, uploaded or imported; also when it was corrected since."""
    ANONYMIZED = "ANONYMIZED"
    """`anonymizeStudy` has made it."""
    MODIFIED = "MODIFIED"
    """`modifyStudy` has made it as a copy."""


class StudyCopyDocument(NamedDocument):
    """A study that this server has made of another one; `_id` is the study's, as in `studies`.

    It does not say of which: it stays when the links of anonymised studies are deleted.
    """

    origin: StudyOrigin

    class Settings:
        """Collection."""

        name = "studyCopies"


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
    origins: list[StudyOrigin] = Field(default_factory=lambda: [StudyOrigin.RECEIVED])
    """The study came into the archive in one of these ways."""
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
    study_instance_uid: str | None = None
    latest_indexed_at: datetime | None = None
    """The newest instance of the study when its last job was started."""
    sent: bytes = b""
    """Marks of the instances that were sent, see `services.modalities.send`."""
    expires_at: datetime

    class Settings:
        """Collection and indexes."""

        name = "forwardedStudies"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("rule", ASCENDING), ("studyInstanceUID", ASCENDING)]),
            IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=0),
        ]


class RetrievedStudyDocument(NamedDocument):
    """What a job has fetched of a study; `_id` is `job/StudyInstanceUID`."""

    ae_title: str
    """Of the modality that had it."""
    study_instance_uid: str
    instances: bytes
    """Marks of the instances, see `services.modalities.sources`."""
    expires_at: datetime

    class Settings:
        """Collection and indexes."""

        name = "retrievedStudies"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("studyInstanceUID", ASCENDING), ("aeTitle", ASCENDING)]),
            IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=0),
        ]
