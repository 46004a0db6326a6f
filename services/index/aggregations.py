"""The fields of a parent, computed from its stored children; counts are never incremented."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from models import InstanceDocument, PatientDocument, SeriesDocument, StudyDocument, Thumbnail
from models.instance import instance_sort
from models.stored import stored_name
from models.study import facet
from services.dicom.search_words import fold, search_words
from services.index.record import Fields
from services.index.statements import (
    DEMOGRAPHICS,
    MAX_STATEMENTS,
    STUDY_ATTRIBUTES,
    Statement,
    are_contradictory,
    merge,
    resolve_series,
    resolve_study,
    values_of,
)

_ATTRIBUTES_DIGEST = stored_name(InstanceDocument.attributes_digest)
_FILE_SIZE_BYTES = stored_name(InstanceDocument.file_size_bytes)
_IMAGE_TYPE = stored_name(InstanceDocument.image_type)
_INDEXED_AT = stored_name(InstanceDocument.indexed_at)
_NUMBER_OF_FRAMES = stored_name(InstanceDocument.number_of_frames)
_ORTHANC_PATIENT_ID = stored_name(InstanceDocument.orthanc_patient_id)
_ORTHANC_SERIES_ID = stored_name(InstanceDocument.orthanc_series_id)
_ORTHANC_STUDY_ID = stored_name(InstanceDocument.orthanc_study_id)
_SERIES_OF_FILE = stored_name(InstanceDocument.series_attributes)
_SOP_CLASS_UID = stored_name(InstanceDocument.sop_class_uid)
_STUDY_OF_FILE = stored_name(InstanceDocument.study_attributes)
_HAS_CONFLICTING_DEMOGRAPHICS = stored_name(PatientDocument.has_conflicting_demographics)
_NUMBER_OF_STUDIES = stored_name(PatientDocument.number_of_studies)
_BODY_PART_EXAMINED = stored_name(SeriesDocument.body_part_examined)
_HAS_PRIMARY_FRAMES = stored_name(SeriesDocument.has_primary_frames)
_LATEST_INDEXED_AT = stored_name(SeriesDocument.latest_indexed_at)
_NUMBER_OF_INSTANCES = stored_name(SeriesDocument.number_of_instances)
_SERIES_INSTANCE_UID = stored_name(SeriesDocument.series_instance_uid)
_SERIES_NUMBER = stored_name(SeriesDocument.series_number)
_STACK_ORDER = stored_name(SeriesDocument.stack_order)
_STUDY_STATEMENTS = stored_name(SeriesDocument.study_statements)
_TOTAL_BYTES = stored_name(SeriesDocument.total_bytes)
_ACCESSION_NUMBER = stored_name(StudyDocument.accession_number)
_ACCESSION_NUMBERS = stored_name(StudyDocument.accession_numbers)
_DEMOGRAPHICS_OF_FILES = stored_name(StudyDocument.demographics_of_files)
_INSTITUTION_NAME = stored_name(StudyDocument.institution_name)
_MODALITIES_IN_STUDY = stored_name(StudyDocument.modalities_in_study)
_NAME_WORDS = stored_name(StudyDocument.name_words)
_NUMBER_OF_SERIES = stored_name(StudyDocument.number_of_series)
_ORDER_ACCESSION_NUMBER = stored_name(StudyDocument.order_accession_number)
_ORDER_PATIENT_NAME = stored_name(StudyDocument.order_patient_name)
_ORDER_STUDY_DATE = stored_name(StudyDocument.order_study_date)
_PATIENT_ID = stored_name(StudyDocument.patient_id)
_PATIENT_NAME = stored_name(StudyDocument.patient_name)
_PATIENT_SEX = stored_name(StudyDocument.patient_sex)
_REFERRING_PHYSICIAN_NAME = stored_name(StudyDocument.referring_physician_name)
_SEARCH_WORDS = stored_name(StudyDocument.search_words)
_STUDY_DATE = stored_name(StudyDocument.study_date)
_STUDY_DESCRIPTION = stored_name(StudyDocument.study_description)
_STUDY_TIME = stored_name(StudyDocument.study_time)
_FRAME_INDEX = stored_name(Thumbnail.frame_index)
_ORTHANC_INSTANCE_ID = stored_name(Thumbnail.orthanc_instance_id)


Pipeline = list[Mapping[str, Any]]

_MAX_WORDS = 512
"""Most words that are kept for the search of one study or patient; the most frequent come first."""

SERIES_FIELDS = [
    stored_name(field)
    for field in (
        SeriesDocument.orthanc_study_id,
        SeriesDocument.orthanc_patient_id,
        SeriesDocument.series_number,
        SeriesDocument.series_instance_uid,
        SeriesDocument.modality,
        SeriesDocument.body_part_examined,
        SeriesDocument.number_of_instances,
        SeriesDocument.number_of_frames,
        SeriesDocument.total_bytes,
        SeriesDocument.study_statements,
        SeriesDocument.thumbnail,
        SeriesDocument.has_primary_frames,
        SeriesDocument.latest_indexed_at,
    )
]
"""The fields of a series that `study_content` needs."""


_IS_SECONDARY: Mapping[str, Any] = {
    "$or": [
        {
            "$regexMatch": {
                "input": {"$ifNull": [f"${_SOP_CLASS_UID}", ""]},
                "regex": r"^1\.2\.840\.10008\.5\.1\.4\.1\.1\.(7|104)(\.|$)",
            }
        },
        {"$in": ["LOCALIZER", {"$ifNull": [f"${_IMAGE_TYPE}", []]}]},
    ]
}
"""Whether an instance is a secondary capture (a scanned page, a screenshot), an encapsulated
document or a localizer (PS3.4 B.5, PS3.3 C.8.2.1.1.1)."""

_SECONDARY_MODALITIES = frozenset(
    {"DOC", "KO", "OT", "PR", "REG", "RTPLAN", "RTSTRUCT", "SC", "SR"}
)
"""Modalities (PS3.3 C.7.3.1.1.1) of documents and of objects that refer to other images."""


def series_pipeline(series_ids: Sequence[str], order: str) -> Pipeline:
    """Return the aggregation over instances that `series_content` reads, one row per series.

    The sort is that of an index, so that MongoDB reads in order. Instances with equal attributes
    are grouped by the digest of the attributes, which are read from one instance of each group.

    Args:
        series_ids: Which series.
        order: Name of the key that sorts their instances (`choose_order`).
    """
    return [
        {"$match": {_ORTHANC_SERIES_ID: {"$in": list(series_ids)}}},
        {"$sort": {_ORTHANC_SERIES_ID: 1, **instance_sort(order)}},
        {
            "$group": {
                "_id": {"series": f"${_ORTHANC_SERIES_ID}", "digest": f"${_ATTRIBUTES_DIGEST}"},
                "instances": {"$sum": 1},
                _NUMBER_OF_FRAMES: {"$sum": f"${_NUMBER_OF_FRAMES}"},
                _TOTAL_BYTES: {"$sum": f"${_FILE_SIZE_BYTES}"},
                "secondaryFrames": {
                    "$sum": {"$cond": [_IS_SECONDARY, f"${_NUMBER_OF_FRAMES}", 0]},
                },
                "latest": {"$max": f"${_INDEXED_AT}"},
                "sample": {"$first": "$_id"},
                "study": {"$first": f"${_ORTHANC_STUDY_ID}"},
                "patient": {"$first": f"${_ORTHANC_PATIENT_ID}"},
                "frames": {"$push": {"i": "$_id", "r": "$revision", "n": f"${_NUMBER_OF_FRAMES}"}},
            }
        },
        {"$set": {"middle": {"$floor": {"$divide": [f"${_NUMBER_OF_FRAMES}", 2]}}}},
        {"$set": {"found": _INSTANCE_OF_MIDDLE_FRAME}},
        {"$unset": "frames"},
        {"$sort": {"instances": -1, "latest": -1, "_id": 1}},
        {
            "$group": {
                "_id": "$_id.series",
                _ORTHANC_STUDY_ID: {"$first": "$study"},
                _ORTHANC_PATIENT_ID: {"$first": "$patient"},
                _NUMBER_OF_INSTANCES: {"$sum": "$instances"},
                _NUMBER_OF_FRAMES: {"$sum": f"${_NUMBER_OF_FRAMES}"},
                _TOTAL_BYTES: {"$sum": f"${_TOTAL_BYTES}"},
                "secondaryFrames": {"$sum": "$secondaryFrames"},
                _LATEST_INDEXED_AT: {"$max": "$latest"},
                "hits": {"$push": {"frames": f"${_NUMBER_OF_FRAMES}", "hit": "$found.hit"}},
                "statements": {
                    "$push": {"instances": "$instances", "latest": "$latest", "sample": "$sample"}
                },
            }
        },
        {
            "$set": {
                "statements": {"$slice": ["$statements", MAX_STATEMENTS]},
                "hits": {"$slice": ["$hits", MAX_STATEMENTS]},
            }
        },
        {
            "$lookup": {
                "from": InstanceDocument.Settings.name,
                "localField": "statements.sample",
                "foreignField": "_id",
                "pipeline": [{"$project": {_STUDY_OF_FILE: 1, _SERIES_OF_FILE: 1}}],
                "as": "samples",
            }
        },
    ]


_INSTANCE_OF_MIDDLE_FRAME: Mapping[str, Any] = {
    "$reduce": {
        "input": "$frames",
        "initialValue": {"before": 0, "hit": None},
        "in": {
            "$cond": [
                {
                    "$or": [
                        {"$ne": ["$$value.hit", None]},
                        {"$lte": [{"$add": ["$$value.before", "$$this.n"]}, "$middle"]},
                    ]
                },
                {"before": {"$add": ["$$value.before", "$$this.n"]}, "hit": "$$value.hit"},
                {
                    "before": {"$add": ["$$value.before", "$$this.n"]},
                    "hit": {
                        "i": "$$this.i",
                        "r": "$$this.r",
                        "f": {"$subtract": ["$middle", "$$value.before"]},
                    },
                },
            ]
        },
    }
}
"""The instance that holds the middle frame of the series. MongoDB computes it, because the frame
counts of a series of 10,000 instances would be a megabyte to transfer at each roll-up."""


def series_content(row: Fields, order: str) -> dict[str, Any]:
    """Turn a row of `series_pipeline` into the fields of a series document that are rolled up.

    The attributes of the series are left out when no instance has any, because an earlier release
    indexed all of them.

    Args:
        row: One series.
        order: The order for which the pipeline was made.
    """
    samples = {sample["_id"]: sample for sample in row["samples"]}
    described = [
        (sample, one)
        for one in row["statements"]
        if (sample := samples.get(one["sample"])) and sample.get(_STUDY_OF_FILE)
    ]
    own, of_study = (
        [Statement(sample[part], one["instances"], one["latest"]) for sample, one in described]
        for part in (_SERIES_OF_FILE, _STUDY_OF_FILE)
    )
    # Where files contradict each other, show the group with the most frames.
    hit = max(row["hits"], key=lambda one: one["frames"])["hit"]
    thumbnail = hit and {
        _ORTHANC_INSTANCE_ID: hit["i"],
        "revision": hit["r"],
        _FRAME_INDEX: int(hit["f"]),
    }
    return {
        _ORTHANC_STUDY_ID: row[_ORTHANC_STUDY_ID],
        _ORTHANC_PATIENT_ID: row[_ORTHANC_PATIENT_ID],
        _NUMBER_OF_INSTANCES: row[_NUMBER_OF_INSTANCES],
        _NUMBER_OF_FRAMES: row[_NUMBER_OF_FRAMES],
        _TOTAL_BYTES: row[_TOTAL_BYTES],
        _STACK_ORDER: order,
        "thumbnail": thumbnail,
        _HAS_PRIMARY_FRAMES: row[_NUMBER_OF_FRAMES] > row["secondaryFrames"],
        _LATEST_INDEXED_AT: row[_LATEST_INDEXED_AT],
        _STUDY_STATEMENTS: [
            {
                "attributes": one.attributes,
                _NUMBER_OF_INSTANCES: one.instances,
                _LATEST_INDEXED_AT: one.latest,
            }
            for one in merge(of_study, (*DEMOGRAPHICS, *STUDY_ATTRIBUTES))
        ],
        **(resolve_series(own) if own else {}),
    }


def study_content(series: Sequence[Fields]) -> dict[str, Any]:
    """Return the fields of a study document that are rolled up from its series.

    Attributes, and fields that derive from them, are left out when no series has any, because an
    earlier release indexed all of them.

    Args:
        series: At least one, with the fields `SERIES_FIELDS`.
    """
    ordered = sorted(series, key=_series_order)
    statements = [
        Statement(one["attributes"], one[_NUMBER_OF_INSTANCES], one[_LATEST_INDEXED_AT])
        for member in ordered
        for one in member.get(_STUDY_STATEMENTS, ())
    ]
    return {
        _ORTHANC_PATIENT_ID: ordered[0][_ORTHANC_PATIENT_ID],
        _NUMBER_OF_SERIES: len(ordered),
        _NUMBER_OF_INSTANCES: sum(one[_NUMBER_OF_INSTANCES] for one in ordered),
        _NUMBER_OF_FRAMES: sum(one[_NUMBER_OF_FRAMES] for one in ordered),
        _TOTAL_BYTES: sum(one.get(_TOTAL_BYTES, 0) for one in ordered),
        _MODALITIES_IN_STUDY: sorted({one["modality"] for one in ordered if one.get("modality")}),
        "thumbnail": _study_thumbnail(ordered),
        _LATEST_INDEXED_AT: max(
            (one[_LATEST_INDEXED_AT] for one in ordered if one.get(_LATEST_INDEXED_AT)),
            default=None,
        ),
        **(
            {**_study_attributes(statements), "facets": _facets(ordered, statements)}
            if statements
            else {}
        ),
    }


_WORDS_OF_FACETS = (_STUDY_DESCRIPTION, _REFERRING_PHYSICIAN_NAME, _INSTITUTION_NAME)


def _facets(series: Sequence[Fields], statements: Sequence[Statement]) -> list[str]:
    has_frames = any(one[_NUMBER_OF_FRAMES] for one in series)
    whole = {
        _PATIENT_SEX: values_of(statements, _PATIENT_SEX),
        _BODY_PART_EXAMINED: [one.get(_BODY_PART_EXAMINED) for one in series],
        "hasFrames": [str(has_frames)],
    }
    values = [
        *(facet(name, fold(value)) for name, found in whole.items() for value in found if value),
        *(
            facet(name, word)
            for name in _WORDS_OF_FACETS
            for word in _words(values_of(statements, name))
        ),
    ]
    return sorted(set(values))


def _study_thumbnail(ordered: Sequence[Fields]) -> Any:  # noqa: ANN401  # as it is stored
    """Return the thumbnail of the first series that shows the patient, else of the first one.

    Scanned pages, reports and localizers often are the first series of a study.
    """
    shown = [one for one in ordered if one.get("thumbnail")]
    primary = (
        one
        for one in shown
        if one.get(_HAS_PRIMARY_FRAMES, True) and one.get("modality") not in _SECONDARY_MODALITIES
    )
    chosen = next(primary, next(iter(shown), None))
    return chosen and chosen["thumbnail"]


def _study_attributes(statements: Sequence[Statement]) -> dict[str, Any]:
    """Return the attributes of a study, and the fields that filters and sort orders use."""
    study = resolve_study(statements)
    names = [study[_PATIENT_NAME], *values_of(statements, _PATIENT_NAME)]
    accession_numbers = values_of(statements, _ACCESSION_NUMBER)
    date, time = study[_STUDY_DATE], study[_STUDY_TIME]
    return {
        **study,
        _DEMOGRAPHICS_OF_FILES: [one.attributes for one in merge(statements, DEMOGRAPHICS)],
        _ACCESSION_NUMBERS: accession_numbers,
        _NAME_WORDS: _words(names),
        _SEARCH_WORDS: _words(
            [
                *names,
                study[_PATIENT_ID],
                *accession_numbers,
                *values_of(statements, _STUDY_DESCRIPTION),
            ]
        ),
        _ORDER_STUDY_DATE: f"{date}T{time or ''}" if date else "",
        _ORDER_PATIENT_NAME: fold(study[_PATIENT_NAME]),
        _ORDER_ACCESSION_NUMBER: study[_ACCESSION_NUMBER] or "",
    }


def patient_pipeline(patient_ids: Sequence[str]) -> Pipeline:
    """Return the aggregation over studies that `patient_content` reads, one row per patient."""
    return [
        {"$match": {_ORTHANC_PATIENT_ID: {"$in": list(patient_ids)}}},
        {
            "$unwind": {
                "path": f"${_DEMOGRAPHICS_OF_FILES}",
                "includeArrayIndex": "position",
                "preserveNullAndEmptyArrays": True,
            }
        },
        {
            "$group": {
                "_id": {
                    "patient": f"${_ORTHANC_PATIENT_ID}",
                    "demographics": f"${_DEMOGRAPHICS_OF_FILES}",
                },
                "studies": {"$sum": {"$cond": [{"$in": ["$position", [0, None]]}, 1, 0]}},
                "latest": {"$max": _STUDY_THAT_CAME_LAST},
            }
        },
        {"$sort": {"latest": -1, "_id": 1}},
        {
            "$group": {
                "_id": "$_id.patient",
                _NUMBER_OF_STUDIES: {"$sum": "$studies"},
                "latest": {"$first": "$latest"},
                "demographics": {"$push": "$_id.demographics"},
            }
        },
        {"$set": {"demographics": {"$slice": ["$demographics", MAX_STATEMENTS]}}},
    ]


WRONG_PATIENTS: Pipeline = [
    {"$group": {"_id": f"${_ORTHANC_PATIENT_ID}", "missing": {"$sum": 1}}},
    {
        "$unionWith": {
            "coll": PatientDocument.Settings.name,
            "pipeline": [{"$project": {"missing": {"$subtract": [0, f"${_NUMBER_OF_STUDIES}"]}}}],
        }
    },
    {"$group": {"_id": "$_id", "missing": {"$sum": "$missing"}}},
    {"$match": {"missing": {"$ne": 0}}},
]
"""The aggregation over studies that finds the patients whose stored number of studies is wrong,
including patients without studies."""

_STUDY_THAT_CAME_LAST: Mapping[str, str] = {
    _LATEST_INDEXED_AT: f"${_LATEST_INDEXED_AT}",
    "_id": "$_id",
    _PATIENT_ID: f"${_PATIENT_ID}",
    **{name: f"${name}" for name in DEMOGRAPHICS},
}
"""MongoDB compares documents field by field, in this order."""


def patient_content(row: Fields) -> dict[str, Any]:
    """Turn a row of `patient_pipeline` into the document of a patient."""
    latest, demographics = row["latest"], row["demographics"]
    shown = {name: latest.get(name) for name in DEMOGRAPHICS}
    name = shown[_PATIENT_NAME]
    return {
        _PATIENT_ID: latest[_PATIENT_ID],
        **shown,
        _NUMBER_OF_STUDIES: row[_NUMBER_OF_STUDIES],
        _HAS_CONFLICTING_DEMOGRAPHICS: are_contradictory(demographics),
        _NAME_WORDS: _words([name, *(one.get(_PATIENT_NAME) for one in demographics)]),
        _ORDER_PATIENT_NAME: fold(name),
    }


def _series_order(series: Fields) -> tuple[bool, int, str]:
    number = series.get(_SERIES_NUMBER)
    # MongoDB sorts null before numbers, and trees show series in this order.
    return (number is not None, number or 0, series[_SERIES_INSTANCE_UID])


def _words(texts: Iterable[str | None]) -> list[str]:
    words = dict.fromkeys(word for text in texts for word in search_words(text))
    return sorted(list(words)[:_MAX_WORDS])
