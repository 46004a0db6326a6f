"""Where the change feed of Orthanc was read up to."""

from datetime import datetime

from models.stored import NamedDocument


class FeedCursorDocument(NamedDocument):
    """The one cursor; it moves only after a page of changes is applied."""

    sequence: int
    """Sequence number of the last change that is applied."""
    change_date: str
    """Date of that change, as Orthanc wrote it; a replaced database of Orthanc has another one."""
    resource_id: str
    """What that change was about."""
    token: int
    """Fencing token of the lease under which it moved last; a smaller one may not move it."""
    moved_at: datetime

    class Settings:
        """Collection."""

        name = "feedCursors"
