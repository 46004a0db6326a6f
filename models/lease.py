"""Which process does a job that only one may do."""

from datetime import datetime

from models.stored import NamedDocument


class LeaseDocument(NamedDocument):
    """A job and its present holder; times are those of MongoDB's clock."""

    holder: str
    """Random name of the process that holds it."""
    token: int
    """Rises with every change of holder: guards what a former holder might still write."""
    expires_at: datetime

    class Settings:
        """Collection."""

        name = "leases"
