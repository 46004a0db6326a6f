"""The input of the indexer: one SOP instance as Orthanc holds it."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from operator import attrgetter
from typing import Any

from pydantic import BaseModel

from models import InstanceDocument
from models.attributes import SeriesAttributes, StudyAttributes
from models.names import contract_name
from models.stored import stored_name
from services.dicom.header import (
    AcquisitionModule,
    GeometryModule,
    ImageModule,
    InstanceHeader,
    PatientModule,
    SeriesModule,
    StudyModule,
)
from services.index.stack_order import order_keys
from services.orthanc.identifiers import OrthancIds, orthanc_ids, orthanc_patient_id

_ATTRIBUTES_DIGEST = stored_name(InstanceDocument.attributes_digest)
_ORTHANC_PATIENT_ID = stored_name(InstanceDocument.orthanc_patient_id)
_ORTHANC_SERIES_ID = stored_name(InstanceDocument.orthanc_series_id)
_ORTHANC_STUDY_ID = stored_name(InstanceDocument.orthanc_study_id)
_SERIES_ATTRIBUTES = stored_name(InstanceDocument.series_attributes)
_STUDY_ATTRIBUTES = stored_name(InstanceDocument.study_attributes)


INDEX_VERSION = 8
"""Increase it when the header reader, a document of the index or a derived field changes: the
comparison with Orthanc then reads again every instance whose document has another version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexRecord:
    """One stored instance, whether it was uploaded here or found in Orthanc.

    Attributes:
        revision: 8 lower-case hex digits that change when Orthanc's file is replaced.
        file_size_bytes: Size of the stored file, in bytes.
        number_of_frames: Frames that can be shown, 0 when there are none.
        not_renderable_reason: A sentence for users when `number_of_frames` is 0.
        beginning: See `CheckedFile`; not indexed. None as well where Orthanc may hold another file.
    """

    header: InstanceHeader
    ids: OrthancIds
    revision: str
    file_size_bytes: int
    number_of_frames: int
    not_renderable_reason: str | None
    beginning: bytes | None = None


def header_ids(header: InstanceHeader) -> OrthancIds:
    """Return the ids of an instance with this header.

    Orthanc only strips spaces from the end of a PatientID. A PatientID with a leading space or a
    no-break space is another patient in Orthanc, whose studies have other ids. For users it is the
    same patient, so `patient` is the id that Orthanc gives the PatientID without padding.
    """
    patient_id = header.patient.patient_id
    identifying = header.identifying_patient_id
    ids = orthanc_ids(
        patient_id if identifying is None else identifying,
        header.study.study_instance_uid,
        header.series.series_instance_uid,
        header.sop_instance_uid,
    )
    return replace(ids, patient=orthanc_patient_id(patient_id))


Fields = Mapping[str, Any]
"""A document or a part of one, by stored names."""


def _reader(model: type[BaseModel], sources: Mapping[str, type]) -> Callable[[Any], dict[str, Any]]:
    """Return a function that reads the fields of a model from a record, by stored names.

    Args:
        model: Declares the fields; those that no source has are left out.
        sources: Dataclasses by their path in a record; the first that has a field provides it.
    """
    paths: dict[str, str] = {}
    for path, source in sources.items():
        for field in fields(source):
            if field.name in model.model_fields:
                paths.setdefault(field.name, f"{path}{field.name}")
    names = [contract_name(name) for name in paths]
    read = attrgetter(*paths.values())
    return lambda record: dict(zip(names, read(record), strict=True))


_read_instance = _reader(
    InstanceDocument,
    {
        "": IndexRecord,
        "header.": InstanceHeader,
        "header.image.": ImageModule,
        "header.geometry.": GeometryModule,
        "header.acquisition.": AcquisitionModule,
    },
)
_read_study = _reader(
    StudyAttributes, {"header.patient.": PatientModule, "header.study.": StudyModule}
)
_read_series = _reader(SeriesAttributes, {"header.series.": SeriesModule})


def instance_fields(entry: IndexRecord) -> dict[str, Any]:
    """Return an instance document without `_id`, `version`, `useOrthancPreview`, `indexedAt`."""
    study, series = _given(_read_study(entry)), _given(_read_series(entry))
    described = json.dumps([study, series]).encode()
    return {
        **_read_instance(entry),
        _ORTHANC_SERIES_ID: entry.ids.series,
        _ORTHANC_STUDY_ID: entry.ids.study,
        _ORTHANC_PATIENT_ID: entry.ids.patient,
        _STUDY_ATTRIBUTES: study,
        _SERIES_ATTRIBUTES: series,
        **order_keys(entry.header),
        _ATTRIBUTES_DIGEST: hashlib.blake2b(described, digest_size=8).hexdigest(),
        stored_name(InstanceDocument.index_version): INDEX_VERSION,
    }


def to_stored_precision(moment: datetime) -> datetime:
    """Truncate a time to milliseconds, the precision of BSON, so that it equals the stored one."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _given(attributes: Fields) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}
