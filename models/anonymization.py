"""Which study an anonymised one was made of."""

from datetime import datetime

from models.stored import NamedDocument


class AnonymizationDocument(NamedDocument):
    """The link of an anonymised study to its source; `_id` is the study's, as in `studies`.

    For administrators: whoever reads it knows whom the anonymised study shows.
    """

    source_study_id: str
    """Orthanc's identifier of the source."""
    source_state: str | None = None
    """Digest of the files of the source that it was made of; None: not all of one state."""
    created_at: datetime

    class Settings:
        """Collection."""

        name = "anonymizations"
