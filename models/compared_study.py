"""The state of a study at its last comparison, so that the next one can skip it."""

from models.stored import NamedDocument


class ComparedStudyDocument(NamedDocument):
    """A study that was the same in Orthanc and here; `_id` is the study's."""

    last_update: str
    """Orthanc's LastUpdate of the study: moves with every instance that is added."""
    study_version: str
    """`version` of our study document: moves with everything that is written to it."""

    index_version: int = 0
    """`INDEX_VERSION` of the code that compared it: a later one compares it again."""

    class Settings:
        """Collection."""

        name = "comparedStudies"
