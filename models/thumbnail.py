"""The frame that stands for a study or a series."""

from pydantic import ConfigDict

from models.stored import NamedModel


class Thumbnail(NamedModel):
    """Points to one frame, with all that minting its URL needs."""

    model_config = ConfigDict(frozen=True)

    orthanc_instance_id: str
    revision: str
    frame_index: int
    """0-based within the instance."""
