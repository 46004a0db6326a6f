"""What the system knows about one SOP instance, whatever it was read from."""

from dataclasses import dataclass


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
    """General Study attributes (PS3.3 C.7.2.1).

    Attributes:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesModule:
    """General Series attributes (PS3.3 C.7.3.1)."""

    series_instance_uid: str
    series_number: int | None = None
    modality: str | None = None
    series_description: str | None = None
    body_part_examined: str | None = None
    protocol_name: str | None = None
    manufacturer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageModule:
    """Image Pixel, Modality LUT and VOI LUT attributes (PS3.3 C.7.6.3, C.11.1, C.11.2).

    Attributes:
        has_pixel_data: PixelData, FloatPixelData or DoubleFloatPixelData is there.
        number_of_frames: Declared NumberOfFrames, 1 when absent; None when it is not a number.
        window_center: First value of WindowCenter, in output units of the modality LUT.
        window_width: First value of WindowWidth.
        has_complex_display: Showing it needs more than these attributes: a LUT sequence, a
            palette, or windows and rescaling per frame in functional groups.
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
    has_complex_display: bool = False
    lacks_number_of_frames: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceHeader:
    """One SOP instance.

    Attributes:
        pixel_data_bytes: Bytes from PixelData's value to the end of the file, None when unknown:
            of deflated files, and in Orthanc's answers of files without meta header.
        frame_fragments: Encapsulated frames found in the file, None when they were not counted.
    """

    patient: PatientModule
    study: StudyModule
    series: SeriesModule
    image: ImageModule
    sop_instance_uid: str
    sop_class_uid: str | None = None
    transfer_syntax_uid: str | None = None
    instance_number: int | None = None
    pixel_data_bytes: int | None = None
    frame_fragments: int | None = None
