"""Frames that ended the process that rendered them."""

from datetime import datetime

from models.stored import NamedDocument


class SuspectFrameDocument(NamedDocument):
    """One frame of one revision of an instance; `_id` is `instance/revision/frame_index`."""

    crashes: int
    """How often a renderer ended, or was ended, at this frame."""
    last_crash_at: datetime

    class Settings:
        """Collection."""

        name = "suspectFrames"
