"""What every stored document has in common."""

from beanie import Document
from pydantic import BaseModel, ConfigDict, Field

from models.names import contract_name


class NamedModel(BaseModel):
    """Fields that are stored, alone or in a document, by their public names."""

    model_config = ConfigDict(
        alias_generator=contract_name,
        populate_by_name=True,
        extra="ignore",
    )


class NamedDocument(Document, NamedModel):
    """A document with a text as `_id` and the public names as fields."""

    id: str = Field(alias="_id")  # type: ignore[assignment]  # Beanie declares an ObjectId
    """The text that MongoDB knows it by."""


class StoredDocument(NamedDocument):
    """A document of a DICOM level, whose `_id` is Orthanc's identifier."""

    version: str
    """A new random value at every write: the guard of compare-and-set roll-ups."""
