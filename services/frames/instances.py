"""What rendering needs to know of an instance."""

from typing import Protocol


class RenderableInstance(Protocol):
    """The part of `models.InstanceDocument` that rendering reads."""

    id: str
    orthanc_series_id: str
    instance_number: int | None
    revision: str
    transfer_syntax_uid: str | None
    use_orthanc_preview: bool
    number_of_frames: int
    not_renderable_reason: str | None
    rows: int | None
    columns: int | None
    samples_per_pixel: int | None
    bits_allocated: int | None
    bits_stored: int | None
    pixel_representation: int | None
    photometric_interpretation: str | None
    window_center: float | None
    window_width: float | None
    voi_lut_function: str | None
    rescale_slope: float | None
    rescale_intercept: float | None
    has_complex_display: bool
