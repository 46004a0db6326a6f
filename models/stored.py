"""What every stored document has in common."""

from beanie import Document
from pydantic import ConfigDict

from models.names import contract_name


class StoredDocument(Document):
    """A document whose `_id` is Orthanc's identifier and whose fields have the public names."""

    model_config = ConfigDict(
        alias_generator=contract_name,
        populate_by_name=True,
        extra="ignore",
    )

    id: str  # type: ignore[assignment]  # Beanie declares an ObjectId; ours is Orthanc's id
    version: str
    """A new random value at every write: the guard of compare-and-set roll-ups."""
