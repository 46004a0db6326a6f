"""The frame that stands for a study or a series."""

from collections.abc import Mapping
from typing import Any

from graph.types.frame import Frame


def frame_of_thumbnail(stored: Mapping[str, Any] | None) -> Frame | None:
    """Return the frame that a stored `models.Thumbnail` points to."""
    if stored is None:
        return None
    return Frame.of(stored["orthancInstanceId"], stored["revision"], stored["frameIndex"])
