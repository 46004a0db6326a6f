"""What the last comparison saw of a study, so that the next can pass it by."""

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
