"""What a DICOM file says about its patient, study and series: declared once, stored twice.

Each instance keeps what its own file says. Its series and its study show what most of their
instances say (`services.index.statements`).
"""

from datetime import datetime

from models.stored import NamedModel


class Demographics(NamedModel):
    """Who the patient is, beside the PatientID (PS3.3 C.7.1.1)."""

    patient_name: str | None = None
    """Decoded by its character set, component groups kept: `Yamada^Tarou=山田^太郎`."""
    patient_birth_date: str | None = None
    """ISO 8601."""
    patient_sex: str | None = None
    issuer_of_patient_id: str | None = None
    """Who assigned the PatientID: the same one of two issuers stands for two people."""


class StudyAttributes(Demographics):
    """A study and its patient as a file describes them (PS3.3 C.7.1.1, C.7.2.1)."""

    patient_id: str
    """Without padding; `""` when the file has none."""
    study_instance_uid: str
    study_id: str | None = None
    study_date: str | None = None
    """ISO 8601."""
    study_time: str | None = None
    """ISO 8601, with up to six fractional digits."""
    study_description: str | None = None
    accession_number: str | None = None
    referring_physician_name: str | None = None
    institution_name: str | None = None
    patient_age: str | None = None
    """As in the file, such as `034Y`."""


class SeriesAttributes(NamedModel):
    """A series as a file describes it (PS3.3 C.7.3.1)."""

    series_instance_uid: str
    series_number: int | None = None
    modality: str | None = None
    series_description: str | None = None
    body_part_examined: str | None = None
    protocol_name: str | None = None
    manufacturer: str | None = None
    series_date: str | None = None
    """ISO 8601."""
    series_time: str | None = None
    """ISO 8601, with up to six fractional digits."""
    performing_physician_name: str | None = None
    station_name: str | None = None


class StudyStatement(NamedModel):
    """What some instances of a series say about their study, all of them the same."""

    attributes: StudyAttributes
    number_of_instances: int
    latest_indexed_at: datetime
    """The newest `indexedAt` of these instances."""
