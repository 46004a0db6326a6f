"""The frame that stands for a study or a series."""

from pydantic import BaseModel, ConfigDict

from models.names import contract_name


class Thumbnail(BaseModel):
    """Points to one frame, with all that minting its URL needs."""

    model_config = ConfigDict(alias_generator=contract_name, populate_by_name=True, frozen=True)

    orthanc_instance_id: str
    revision: str
    frame_index: int
    """0-based within the instance."""
