"""Frames that were being rendered when Orthanc died."""

from datetime import datetime

from models.stored import NamedDocument


class SuspectFrameDocument(NamedDocument):
    """One frame of one revision of an instance; `_id` is `instance/revision/frame_index`."""

    deaths: int
    """How often Orthanc died while rendering this frame and nothing else."""
    last_death_at: datetime

    class Settings:
        """Collection."""

        name = "suspectFrames"
