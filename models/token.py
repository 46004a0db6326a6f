"""Static bearer tokens."""

from datetime import datetime

from models.stored import NamedDocument


class TokenDocument(NamedDocument):
    """A static bearer token; `_id` is its name. The token itself is not stored.

    Revoked tokens stay, so that the audit trail's names keep their meaning and a server whose
    tokens are all revoked does not count as one that never had any.
    """

    role: str
    """`viewer`, `uploader` or `admin`."""
    sha256: str
    """SHA-256 of the token's UTF-8 bytes, 64 lower-case hex digits."""
    labels: list[str] | None = None
    """Only studies with one of these are shown; None: all studies."""
    created_at: datetime
    expires_at: datetime | None = None
    """First moment at which it is no longer accepted; None: never."""
    revoked_at: datetime | None = None

    def is_valid_at(self, now: datetime) -> bool:
        """Return whether it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    class Settings:
        """Collection: a few documents, always read as a whole."""

        name = "tokens"
