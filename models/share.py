"""Links that show some studies to all who have them."""

from datetime import datetime
from typing import ClassVar

from pydantic import Field
from pymongo import ASCENDING, DESCENDING, IndexModel

from models.stored import NamedDocument


class ShareDocument(NamedDocument):
    """A share; `_id` is 16 random hex digits. Its token is not stored.

    Shares that ended stay, so that the audit trail's names keep their meaning.
    """

    name: str
    """For people: its recipient or purpose."""
    sha256: str
    """SHA-256 of the token's UTF-8 bytes, 64 lower-case hex digits."""
    study_ids: list[str]
    """Orthanc's identifiers of the studies that it shows."""
    may_download: bool = False
    """Whether archives and files may be taken, beside pictures and headers."""
    created_at: datetime
    created_by: str
    """Name of the principal who made it."""
    expires_at: datetime
    """First moment at which it is no longer accepted."""
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    """To the minute."""
    use_count: int = Field(default=0)
    """In how many minutes it was used."""
    opened_at: datetime | None = None
    """When its use was last recorded in the audit trail: at most once an hour."""

    def is_valid_at(self, now: datetime) -> bool:
        """Return whether it is neither revoked nor expired."""
        return self.revoked_at is None and now < self.expires_at

    class Settings:
        """Collection and indexes."""

        name = "shares"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("sha256", ASCENDING)], unique=True),
            IndexModel([("createdAt", DESCENDING), ("_id", DESCENDING)]),
            IndexModel([("createdBy", ASCENDING), ("createdAt", DESCENDING), ("_id", DESCENDING)]),
        ]
