"""The header of one SOP instance: the attributes that the index keeps."""

from dataclasses import dataclass, field
from typing import TypedDict


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientModule:
    """Patient Module attributes (PS3.3 C.7.1.1).

    Attributes:
        patient_id: PatientID, `""` when absent.
        patient_name: PatientName decoded by its character set, component groups kept:
            `Yamada^Tarou=山田^太郎`.
        patient_birth_date: ISO 8601, None when absent or no date.
        patient_sex: PatientSex.
        issuer_of_patient_id: IssuerOfPatientID: who assigned the PatientID.
    """

    patient_id: str
    patient_name: str | None = None
    patient_birth_date: str | None = None
    patient_sex: str | None = None
    issuer_of_patient_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyModule:
    """General Study and Patient Study attributes (PS3.3 C.7.2.1, C.7.2.2).

    Attributes:
        patient_age: PatientAge as in the file, such as `034Y`.
        study_date: ISO 8601, None when absent or no date.
        study_time: ISO 8601 with up to six fractional digits, None when absent or no time.
    """

    study_instance_uid: str
    study_id: str | None = None
    study_date: str | None = None
    study_time: str | None = None
    study_description: str | None = None
    accession_number: str | None = None
    referring_physician_name: str | None = None
    institution_name: str | None = None
    patient_age: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesModule:
    """General Series and General Equipment attributes (PS3.3 C.7.3.1, C.7.5.1).

    Attributes:
        series_date: ISO 8601, None when absent or no date.
        series_time: ISO 8601, None when absent or no time.
    """

    series_instance_uid: str
    series_number: int | None = None
    modality: str | None = None
    series_description: str | None = None
    body_part_examined: str | None = None
    protocol_name: str | None = None
    manufacturer: str | None = None
    series_date: str | None = None
    series_time: str | None = None
    performing_physician_name: str | None = None
    station_name: str | None = None


class FileWindow(TypedDict):
    """One window of a file (PS3.3 C.11.2.1.2), in output units of the modality LUT.

    A dictionary, as it is stored: `width` is above 0, `explanation` tells what it is for, such as
    BONE, and `function` is LINEAR, LINEAR_EXACT or SIGMOID.
    """

    center: float
    width: float
    explanation: str | None
    function: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GeometryModule:
    """Where the image is and how large (PS3.3 C.7.6.2, C.7.6.3, C.10.7), lengths in mm.

    Of images with functional groups: the shared ones, else those of the first frame.

    Attributes:
        pixel_spacing: Distance of rows, then of columns, in the patient.
        imager_pixel_spacing: Likewise, at the detector.
        pixel_aspect_ratio: Vertical, then horizontal size of a pixel.
        image_position_patient: x, y, z of the first pixel's center.
        image_orientation_patient: Direction cosines of the rows, then of the columns.
        laterality: ImageLaterality, else Laterality.
        patient_orientation: Directions of the rows, then of the columns, such as L and P.
    """

    pixel_spacing: tuple[float, ...] | None = None
    imager_pixel_spacing: tuple[float, ...] | None = None
    pixel_aspect_ratio: tuple[float, ...] | None = None
    image_position_patient: tuple[float, ...] | None = None
    image_orientation_patient: tuple[float, ...] | None = None
    frame_of_reference_uid: str | None = None
    slice_location: float | None = None
    slice_thickness: float | None = None
    spacing_between_slices: float | None = None
    laterality: str | None = None
    view_position: str | None = None
    patient_orientation: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AcquisitionModule:
    """How the image was acquired (PS3.3 C.7.6.1, C.8.3.1).

    Attributes:
        acquisition_date_time: ISO 8601, with the offset from UTC where the file has one; of
            AcquisitionDateTime, else of AcquisitionDate and AcquisitionTime.
    """

    acquisition_number: int | None = None
    acquisition_date_time: str | None = None
    echo_numbers: tuple[int, ...] = ()
    temporal_position_identifier: int | None = None
    image_type: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageModule:
    """Image Pixel, Modality LUT and VOI LUT attributes (PS3.3 C.7.6.3, C.11.1, C.11.2).

    Attributes:
        has_pixel_data: PixelData, FloatPixelData or DoubleFloatPixelData is there.
        number_of_frames: Declared NumberOfFrames, 1 when absent; None when it is not a number.
        windows: All windows, in the order of the file.
        window_center: Of the first window, in output units of the modality LUT.
        window_width: Of the first window, above 0.
        rescale_type: Unit of the modality LUT's output, such as HU.
        lossy_image_compression: Whether it ever was compressed with loss (PS3.3 C.7.6.1.1.5).
        lossy_image_compression_ratio: The last one, when there were several.
        burned_in_annotation: Whether the pixels contain text that identifies the patient.
        frame_time: Milliseconds between frames (PS3.3 C.7.6.5).
        recommended_display_frame_rate: Frames a second.
        has_complex_display: Rendering needs more attributes than these: a LUT sequence, a palette,
            or windows and rescaling of each frame in functional groups.
        lacks_palette: Its pixels are indexes into a palette that is missing.
        lacks_number_of_frames: FrameIncrementPointer is there and NumberOfFrames is not; decoding
            such a file stops an Orthanc with GDCM.
    """

    has_pixel_data: bool
    rows: int | None = None
    columns: int | None = None
    samples_per_pixel: int | None = None
    bits_allocated: int | None = None
    bits_stored: int | None = None
    pixel_representation: int | None = None
    photometric_interpretation: str | None = None
    number_of_frames: int | None = 1
    window_center: float | None = None
    window_width: float | None = None
    voi_lut_function: str | None = None
    rescale_slope: float | None = None
    rescale_intercept: float | None = None
    rescale_type: str | None = None
    windows: tuple[FileWindow, ...] = ()
    lossy_image_compression: bool | None = None
    lossy_image_compression_ratio: float | None = None
    burned_in_annotation: bool | None = None
    frame_time: float | None = None
    recommended_display_frame_rate: float | None = None
    has_complex_display: bool = False
    lacks_palette: bool = False
    lacks_number_of_frames: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceHeader:
    """One SOP instance.

    Attributes:
        identifying_patient_id: PatientID as Orthanc hashes it: without spaces at its end, but with
            all other padding, which `patient.patient_id` is without.
        pixel_data_bytes: Bytes from PixelData's value to the end of the file, None when unknown:
            of deflated files.
        frame_fragments: Declared frames that encapsulated pixel data really has, None when they
            were not counted; see `fragments.count_frames`.
    """

    patient: PatientModule
    study: StudyModule
    series: SeriesModule
    image: ImageModule
    geometry: GeometryModule = field(default_factory=GeometryModule)
    acquisition: AcquisitionModule = field(default_factory=AcquisitionModule)
    sop_instance_uid: str
    identifying_patient_id: str | None = None
    sop_class_uid: str | None = None
    transfer_syntax_uid: str | None = None
    instance_number: int | None = None
    pixel_data_bytes: int | None = None
    frame_fragments: int | None = None
