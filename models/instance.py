"""Instances: one document per SOP instance, however many frames it has."""

from datetime import datetime
from typing import ClassVar

from pydantic import Field
from pymongo import ASCENDING, DESCENDING, IndexModel

from models.attributes import SeriesAttributes, StudyAttributes
from models.stored import NamedModel, StoredDocument


class FileWindow(NamedModel):
    """One window of a file (PS3.3 C.11.2.1.2), in output units of the modality LUT."""

    center: float
    width: float
    explanation: str | None = None
    function: str = "LINEAR"


STACK_ORDER = "stackKey"
GROUPED_STACK_ORDER = "groupedStackKey"
ACQUISITION_TIME_ORDER = "timeKey"
INSTANCE_NUMBER_ORDER = "numberKey"
INSTANCE_ORDERS = (
    STACK_ORDER,
    GROUPED_STACK_ORDER,
    ACQUISITION_TIME_ORDER,
    INSTANCE_NUMBER_ORDER,
)
"""Stored names of the keys that instances of a series can be ordered by, then sopInstanceUID."""

EARLIER_ORDER = "instanceNumber"
"""Of series that an earlier release indexed, until they are read again; their database has an index
for it."""


def instance_sort(order: str) -> dict[str, int]:
    """Return an order of the instances of one series, as MongoDB sorts: an index has it.

    Args:
        order: One of `INSTANCE_ORDERS`, or `EARLIER_ORDER`.
    """
    return {order: 1, "sopInstanceUID": 1}


class InstanceDocument(StoredDocument):
    """One SOP instance: what a tree shows of it and what rendering its frames needs."""

    orthanc_series_id: str
    orthanc_study_id: str
    orthanc_patient_id: str
    """`_id` of the patient document: Orthanc's id of the PatientID without padding."""
    revision: str
    """8 lower-case hex digits; changes when Orthanc's stored file was replaced."""
    file_size_bytes: int
    use_orthanc_preview: bool = True
    """False: Orthanc is never asked for this instance's pictures."""

    sop_instance_uid: str
    sop_class_uid: str | None = None
    transfer_syntax_uid: str | None = None
    instance_number: int | None = None

    # Image pixel and display attributes (PS3.3 C.7.6.3, C.11.1, C.11.2).
    rows: int | None = None
    columns: int | None = None
    samples_per_pixel: int | None = None
    bits_allocated: int | None = None
    bits_stored: int | None = None
    pixel_representation: int | None = None
    photometric_interpretation: str | None = None
    window_center: float | None = None
    window_width: float | None = None
    voi_lut_function: str | None = None
    rescale_slope: float | None = None
    rescale_intercept: float | None = None
    rescale_type: str | None = None
    """Unit of the modality LUT's output, such as HU."""
    windows: list[FileWindow] = Field(default_factory=list)
    """All windows of the file; those of the first frame where they differ by frame."""
    has_complex_display: bool = False
    """Display needs more of the header than is stored here: LUT sequences, palettes, per-frame
    windows."""

    lossy_image_compression: bool | None = None
    lossy_image_compression_ratio: float | None = None
    burned_in_annotation: bool | None = None
    frame_time: float | None = None
    """Milliseconds."""
    recommended_display_frame_rate: float | None = None

    # Geometry (PS3.3 C.7.6.2, C.7.6.3, C.10.7), in mm; of the first frame where frames differ.
    pixel_spacing: list[float] | None = None
    imager_pixel_spacing: list[float] | None = None
    pixel_aspect_ratio: list[float] | None = None
    image_position_patient: list[float] | None = None
    image_orientation_patient: list[float] | None = None
    frame_of_reference_uid: str | None = None
    slice_location: float | None = None
    slice_thickness: float | None = None
    spacing_between_slices: float | None = None
    laterality: str | None = None
    view_position: str | None = None
    patient_orientation: list[str] = Field(default_factory=list)

    # Acquisition (PS3.3 C.7.6.1, C.8.3.1).
    acquisition_number: int | None = None
    acquisition_date_time: str | None = None
    """ISO 8601, with the offset from UTC where the file has one."""
    echo_numbers: list[int] = Field(default_factory=list)
    temporal_position_identifier: int | None = None
    image_type: list[str] = Field(default_factory=list)

    number_of_frames: int
    """Renderable frames; 0 for what has no pixels or can't be shown."""
    not_renderable_reason: str | None = None
    """A sentence for users; None when the frames can be shown."""

    # Sortable, see `services.index.stack_order`; "" in records of earlier releases.
    stack_key: str = ""
    """Spatial: orientation, temporal position, echo, position along the normal."""
    grouped_stack_key: str = ""
    """Spatial, with acquisitions and kinds of image one after the other."""
    time_key: str = ""
    """Acquisition time, then spatial."""
    number_key: str = ""
    """InstanceNumber, then acquisition time."""

    study_attributes: StudyAttributes | None = None
    """What this file says about its study and patient; None in records of earlier releases."""
    series_attributes: SeriesAttributes | None = None
    attributes_digest: str | None = None
    """Equal for instances that say the same of series, study and patient: counted by it."""
    index_version: int = 0
    """Of the code that read the file, see `services.index.record.INDEX_VERSION`."""
    indexed_at: datetime
    """When this revision was first indexed."""

    class Settings:
        """Collection and indexes."""

        name = "instances"
        indexes: ClassVar[list[IndexModel]] = [
            *(
                IndexModel(
                    [
                        ("orthancSeriesId", ASCENDING),
                        (order, ASCENDING),
                        ("sopInstanceUID", ASCENDING),
                    ]
                )
                for order in INSTANCE_ORDERS
            ),
            IndexModel([("orthancStudyId", ASCENDING)]),
            IndexModel([("sopInstanceUID", ASCENDING), ("indexedAt", DESCENDING)]),
        ]
