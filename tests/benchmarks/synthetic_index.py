"""An index of made-up studies, written straight into MongoDB: no files, no patient's data.

Every patient has two studies. Half of the patients have the given name Anna, every other study is
one of the thorax, so that a filter finds half of an index of any size; a family name occurs once.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from models.instance import INSTANCE_ORDERS, STACK_ORDER
from services.dicom.search_words import fold, search_words
from services.index.record import INDEX_VERSION
from services.orthanc.identifiers import orthanc_ids

Document = dict[str, Any]

_BEGIN = datetime(2000, 1, 1, tzinfo=UTC)
_BATCH_SIZE = 5000
_STUDIES_PER_PATIENT = 2
_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
_FILE_BYTES = 526_000
_KEY_CHARACTERS = 81
_REVISION = "deadbeef"
_ROOT = "1.2.826.0.1.3680043.8.498"


@dataclass(frozen=True, slots=True)
class IndexSize:
    """How much there is of what.

    Attributes:
        studies: In all.
        series: Of each study.
        instances: Of each series.
    """

    studies: int
    series: int = 1
    instances: int = 1


async def fill(database: AsyncDatabase[Document], size: IndexSize) -> None:
    """Write an index; a server that starts on it adds what makes it searchable."""
    numbers = range(size.studies)
    await _insert(database, "patients", map(patient, range(size.studies // _STUDIES_PER_PATIENT)))
    await _insert(database, "studies", (study(number, size) for number in numbers))
    pairs = list(itertools.product(numbers, range(size.series)))
    await _insert(database, "series", (series(*pair, size) for pair in pairs))
    await _insert(
        database,
        "instances",
        (instance(*pair, index) for pair in pairs for index in range(size.instances)),
    )


def study_uid(number: int) -> str:
    """Return the StudyInstanceUID of a study."""
    return f"{_ROOT}.{number}"


def patient(number: int) -> Document:
    """Make a patient."""
    name = _name(number)
    return {
        "_id": orthanc_ids(_patient_id(number), "", "", "").patient,
        "version": "made",
        "patientID": _patient_id(number),
        "patientName": name,
        "patientBirthDate": "1970-01-01",
        "patientSex": "F",
        "hasConflictingDemographics": False,
        "numberOfStudies": _STUDIES_PER_PATIENT,
        "nameWords": search_words(name),
        "orderPatientName": fold(name),
    }


def study(number: int, size: IndexSize) -> Document:
    """Make a study: the higher its number, the newer it is."""
    person = number // _STUDIES_PER_PATIENT
    ids = orthanc_ids(_patient_id(person), study_uid(number), _series_uid(number, 0), "0")
    name, moment = _name(person), _BEGIN + timedelta(minutes=40 * number)
    attributes = _study_attributes(number)
    accession_number, description = attributes["accessionNumber"], attributes["studyDescription"]
    return {
        "_id": ids.study,
        "version": "made",
        "orthancPatientId": ids.patient,
        **attributes,
        "modalitiesInStudy": ["CT"],
        "numberOfSeries": size.series,
        "numberOfInstances": size.series * size.instances,
        "numberOfFrames": size.series * size.instances,
        "totalBytes": size.series * size.instances * _FILE_BYTES,
        "demographicsOfFiles": [_demographics(person)],
        "accessionNumbers": [accession_number],
        "thumbnail": {
            "orthancInstanceId": ids.instance,
            "revision": _REVISION,
            "frameIndex": 0,
        },
        "nameWords": search_words(name),
        "searchWords": search_words(name, _patient_id(person), accession_number, description),
        "orderStudyDate": moment.strftime("%Y-%m-%dT%H:%M:%S"),
        "facets": ["hasFrames:true", "patientSex:f"],
        "orderPatientName": fold(name),
        "orderAccessionNumber": accession_number,
        "createdAt": moment,
        "updatedAt": moment,
        "latestIndexedAt": moment,
    }


def series(number: int, index: int, size: IndexSize) -> Document:
    """Make a series; `index` is 0-based within its study."""
    person = number // _STUDIES_PER_PATIENT
    uid = _series_uid(number, index)
    ids = orthanc_ids(_patient_id(person), study_uid(number), uid, f"{size.instances // 2}")
    return {
        "_id": ids.series,
        "version": "made",
        "orthancStudyId": ids.study,
        "orthancPatientId": ids.patient,
        "seriesInstanceUID": uid,
        "seriesNumber": index + 1,
        "modality": "CT",
        "seriesDescription": "Axial 1.0",
        "numberOfInstances": size.instances,
        "numberOfFrames": size.instances,
        "totalBytes": size.instances * _FILE_BYTES,
        "stackOrder": STACK_ORDER,
        "studyStatements": [
            {
                "attributes": _study_attributes(number),
                "numberOfInstances": size.instances,
                "latestIndexedAt": _BEGIN,
            }
        ],
        "thumbnail": {
            "orthancInstanceId": ids.instance,
            "revision": _REVISION,
            "frameIndex": 0,
        },
        "latestIndexedAt": _BEGIN,
    }


def instance(number: int, series_index: int, index: int) -> Document:
    """Make an instance; the indices are 0-based within their parents."""
    person = number // _STUDIES_PER_PATIENT
    uid = _series_uid(number, series_index)
    ids = orthanc_ids(_patient_id(person), study_uid(number), uid, f"{index}")
    return {
        "_id": ids.instance,
        "version": "made",
        "orthancSeriesId": ids.series,
        "orthancStudyId": ids.study,
        "orthancPatientId": ids.patient,
        "revision": _REVISION,
        "fileSizeBytes": _FILE_BYTES,
        "useOrthancPreview": True,
        "sopInstanceUID": f"{uid}.{index}",
        "sopClassUID": _CT_IMAGE,
        "transferSyntaxUID": "1.2.840.10008.1.2.1",
        "instanceNumber": index + 1,
        "rows": 512,
        "columns": 512,
        "samplesPerPixel": 1,
        "bitsAllocated": 16,
        "bitsStored": 12,
        "pixelRepresentation": 0,
        "photometricInterpretation": "MONOCHROME2",
        "windowCenter": 40.0,
        "windowWidth": 400.0,
        "rescaleSlope": 1.0,
        "rescaleIntercept": -1024.0,
        "hasComplexDisplay": False,
        "numberOfFrames": 1,
        # As long as those of axial slices.
        **dict.fromkeys(INSTANCE_ORDERS, f"{index + 1:0{_KEY_CHARACTERS}d}"),
        "studyAttributes": _study_attributes(number),
        "seriesAttributes": {
            "seriesInstanceUID": uid,
            "seriesNumber": series_index + 1,
            "modality": "CT",
            "seriesDescription": "Axial 1.0",
        },
        "attributesDigest": f"{number:08x}{series_index:08x}",
        "indexVersion": INDEX_VERSION,
        "indexedAt": _BEGIN,
    }


def _demographics(person: int) -> Document:
    return {"patientName": _name(person), "patientBirthDate": "1970-01-01", "patientSex": "F"}


def _study_attributes(number: int) -> Document:
    person = number // _STUDIES_PER_PATIENT
    moment = _BEGIN + timedelta(minutes=40 * number)
    return {
        **_demographics(person),
        "patientID": _patient_id(person),
        "studyInstanceUID": study_uid(number),
        "studyDate": moment.date().isoformat(),
        "studyTime": moment.time().isoformat(),
        "studyDescription": "Thorax routine" if number % 2 else "Abdomen routine",
        "accessionNumber": f"A{number:07}",
    }


def _patient_id(number: int) -> str:
    return f"P{number:06}"


def _name(number: int) -> str:
    return f"Family{number:06}^{'Anna' if number % 2 else 'Bert'}"


def _series_uid(number: int, index: int) -> str:
    return f"{study_uid(number)}.{index}"


async def _insert(
    database: AsyncDatabase[Document], collection: str, documents: Iterable[Document]
) -> None:
    for batch in _batches(iter(documents)):
        await database[collection].insert_many(batch, ordered=False)


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    while batch := list(itertools.islice(documents, _BATCH_SIZE)):
        yield batch
