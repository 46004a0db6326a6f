"""What every stored document has in common."""

from typing import TYPE_CHECKING

from beanie import Document
from pydantic import BaseModel, ConfigDict, Field

from models.names import contract_name

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)


class _FieldNames(ModelMetaclass):
    """Makes `StudyDocument.patient_id` the stored name of that field.

    Beanie does the same, but only for documents, and only after the database was opened. pydantic
    looks for default values in the attributes of a class, so a class that is being built has none,
    and it warns where an attribute is declared again, as `id` is.
    """

    if not TYPE_CHECKING:  # The type check knows the declared fields only.

        def __getattr__(self, attribute: str) -> str:
            """Return the stored name of a field."""
            if self.__dict__.get("__pydantic_complete__") and attribute != "id":
                field = self.__pydantic_fields__.get(attribute)
                if field is not None:
                    return field.alias
            return super().__getattr__(attribute)


def stored_name(field: object) -> str:
    """Return the name by which MongoDB knows a field.

    This is the one source of names in filters, projections and pipelines: a misspelt field fails
    when its module is imported, and a renamed one is renamed everywhere.

    Args:
        field: As an attribute of its class: `StudyDocument.patient_id`, which is `patientID`.
    """
    return str(field)


class NamedModel(BaseModel, metaclass=_FieldNames):
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
