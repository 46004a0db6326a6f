"""What is written of an instance is what its document declares."""

from models import InstanceDocument
from models.names import contract_name
from services.dicom.header import (
    ImageModule,
    InstanceHeader,
    PatientModule,
    SeriesModule,
    StudyModule,
)
from services.index.record import IndexRecord, instance_fields
from services.orthanc.identifiers import orthanc_ids

_WRITTEN_BESIDE = {"id", "revision_id", "version", "use_orthanc_preview", "indexed_at"}


def record(**patient: str) -> IndexRecord:
    return IndexRecord(
        header=InstanceHeader(
            patient=PatientModule(patient_id="P", **patient),
            study=StudyModule(study_instance_uid="1"),
            series=SeriesModule(series_instance_uid="2", series_number=3),
            image=ImageModule(has_pixel_data=True, rows=4, number_of_frames=None),
            sop_instance_uid="3",
        ),
        ids=orthanc_ids("P", "1", "2", "3"),
        revision="00000001",
        file_size_bytes=5,
        number_of_frames=6,
        not_renderable_reason=None,
    )


def test_every_declared_field_is_written() -> None:
    declared = InstanceDocument.model_fields.keys() - _WRITTEN_BESIDE
    assert instance_fields(record()).keys() == {contract_name(name) for name in declared}


def test_frames_are_counted_by_what_can_be_shown() -> None:
    fields = instance_fields(record())
    assert (fields["numberOfFrames"], fields["rows"], fields["columns"]) == (6, 4, None)


def test_parents_are_described_without_what_the_file_leaves_out() -> None:
    fields = instance_fields(record(patient_sex="F"))
    assert fields["studyAttributes"] == {
        "patientID": "P",
        "patientSex": "F",
        "studyInstanceUID": "1",
    }
    assert fields["seriesAttributes"] == {"seriesInstanceUID": "2", "seriesNumber": 3}


def test_equal_descriptions_have_equal_digests() -> None:
    digests = [instance_fields(record(patient_sex=sex))["attributesDigest"] for sex in "FFM"]
    assert digests[0] == digests[1] != digests[2]
