"""What a parent says about its children: computed from what is stored, never incremented."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from models import InstanceDocument, PatientDocument
from models.instance import instance_sort
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

Pipeline = list[Mapping[str, Any]]

_MAX_WORDS = 512
"""Of all that the files of one study or patient say; the most frequent come first."""

SERIES_FIELDS = (
    "orthancStudyId",
    "orthancPatientId",
    "seriesNumber",
    "seriesInstanceUID",
    "modality",
    "bodyPartExamined",
    "numberOfInstances",
    "numberOfFrames",
    "totalBytes",
    "studyStatements",
    "thumbnail",
    "hasPrimaryFrames",
    "latestIndexedAt",
)
"""What `study_content` reads of a series."""


_IS_SECONDARY: Mapping[str, Any] = {
    "$or": [
        {
            "$regexMatch": {
                "input": {"$ifNull": ["$sopClassUID", ""]},
                "regex": r"^1\.2\.840\.10008\.5\.1\.4\.1\.1\.(7|104)(\.|$)",
            }
        },
        {"$in": ["LOCALIZER", {"$ifNull": ["$imageType", []]}]},
    ]
}
"""Whether an instance is a secondary capture (a scanned page, a screenshot), an encapsulated
document or a localizer (PS3.4 B.5, PS3.3 C.8.2.1.1.1)."""

_SECONDARY_MODALITIES = frozenset(
    {"DOC", "KO", "OT", "PR", "REG", "RTPLAN", "RTSTRUCT", "SC", "SR"}
)
"""Modalities (PS3.3 C.7.3.1.1.1) of documents and of what belongs to other images."""


def series_pipeline(series_ids: Sequence[str], order: str) -> Pipeline:
    """Return the aggregation over instances that `series_content` reads, one row per series.

    The sort is that of an index, so that MongoDB reads in order. Instances that say the same are
    counted by their digest, and one of them is looked up for what it says.

    Args:
        series_ids: Which series.
        order: Key of their instances that is the order of the stack (`choose_order`).
    """
    return [
        {"$match": {"orthancSeriesId": {"$in": list(series_ids)}}},
        {"$sort": {"orthancSeriesId": 1, **instance_sort(order)}},
        {
            "$group": {
                "_id": {"series": "$orthancSeriesId", "digest": "$attributesDigest"},
                "instances": {"$sum": 1},
                "numberOfFrames": {"$sum": "$numberOfFrames"},
                "totalBytes": {"$sum": "$fileSizeBytes"},
                "secondaryFrames": {
                    "$sum": {"$cond": [_IS_SECONDARY, "$numberOfFrames", 0]},
                },
                "latest": {"$max": "$indexedAt"},
                "sample": {"$first": "$_id"},
                "study": {"$first": "$orthancStudyId"},
                "patient": {"$first": "$orthancPatientId"},
                "frames": {"$push": {"i": "$_id", "r": "$revision", "n": "$numberOfFrames"}},
            }
        },
        {"$set": {"middle": {"$floor": {"$divide": ["$numberOfFrames", 2]}}}},
        {"$set": {"found": _INSTANCE_OF_MIDDLE_FRAME}},
        {"$unset": "frames"},
        {"$sort": {"instances": -1, "latest": -1, "_id": 1}},
        {
            "$group": {
                "_id": "$_id.series",
                "orthancStudyId": {"$first": "$study"},
                "orthancPatientId": {"$first": "$patient"},
                "numberOfInstances": {"$sum": "$instances"},
                "numberOfFrames": {"$sum": "$numberOfFrames"},
                "totalBytes": {"$sum": "$totalBytes"},
                "secondaryFrames": {"$sum": "$secondaryFrames"},
                "latestIndexedAt": {"$max": "$latest"},
                "hits": {"$push": {"frames": "$numberOfFrames", "hit": "$found.hit"}},
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
                "pipeline": [{"$project": {"studyAttributes": 1, "seriesAttributes": 1}}],
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
"""The first instance whose frames, with all before it, reach past the middle; computed in MongoDB
because a series of 10,000 instances would be a megabyte to send at each roll-up."""


def series_content(row: Fields, order: str) -> dict[str, Any]:
    """Turn a row of `series_pipeline` into a series document, as far as it is rolled up.

    Its attributes are left out while no instance has any: all were indexed by an earlier release.

    Args:
        row: One series.
        order: That its pipeline was made for.
    """
    samples = {sample["_id"]: sample for sample in row["samples"]}
    said = [
        (sample, one)
        for one in row["statements"]
        if (sample := samples.get(one["sample"])) and sample.get("studyAttributes")
    ]
    own, of_study = (
        [Statement(sample[part], one["instances"], one["latest"]) for sample, one in said]
        for part in ("seriesAttributes", "studyAttributes")
    )
    # Where files contradict each other, the larger part of them is shown.
    hit = max(row["hits"], key=lambda one: one["frames"])["hit"]
    thumbnail = hit and {
        "orthancInstanceId": hit["i"],
        "revision": hit["r"],
        "frameIndex": int(hit["f"]),
    }
    return {
        "orthancStudyId": row["orthancStudyId"],
        "orthancPatientId": row["orthancPatientId"],
        "numberOfInstances": row["numberOfInstances"],
        "numberOfFrames": row["numberOfFrames"],
        "totalBytes": row["totalBytes"],
        "stackOrder": order,
        "thumbnail": thumbnail,
        "hasPrimaryFrames": row["numberOfFrames"] > row["secondaryFrames"],
        "latestIndexedAt": row["latestIndexedAt"],
        "studyStatements": [
            {
                "attributes": one.attributes,
                "numberOfInstances": one.instances,
                "latestIndexedAt": one.latest,
            }
            for one in merge(of_study, (*DEMOGRAPHICS, *STUDY_ATTRIBUTES))
        ],
        **(resolve_series(own) if own else {}),
    }


def study_content(series: Sequence[Fields]) -> dict[str, Any]:
    """Roll the series of one study up.

    Attributes and what derives from them are left out while no series knows any: all were indexed
    by an earlier release.

    Args:
        series: With `SERIES_FIELDS`, at least one.
    """
    ordered = sorted(series, key=_series_order)
    statements = [
        Statement(one["attributes"], one["numberOfInstances"], one["latestIndexedAt"])
        for member in ordered
        for one in member.get("studyStatements", ())
    ]
    return {
        "orthancPatientId": ordered[0]["orthancPatientId"],
        "numberOfSeries": len(ordered),
        "numberOfInstances": sum(one["numberOfInstances"] for one in ordered),
        "numberOfFrames": sum(one["numberOfFrames"] for one in ordered),
        "totalBytes": sum(one.get("totalBytes", 0) for one in ordered),
        "modalitiesInStudy": sorted({one["modality"] for one in ordered if one.get("modality")}),
        "thumbnail": _study_thumbnail(ordered),
        "latestIndexedAt": max(
            (one["latestIndexedAt"] for one in ordered if one.get("latestIndexedAt")), default=None
        ),
        **(
            {**_study_attributes(statements), "facets": _facets(ordered, statements)}
            if statements
            else {}
        ),
    }


_WORDS_OF_FACETS = ("studyDescription", "referringPhysicianName", "institutionName")


def _facets(series: Sequence[Fields], statements: Sequence[Statement]) -> list[str]:
    has_frames = any(one["numberOfFrames"] for one in series)
    whole = {
        "patientSex": values_of(statements, "patientSex"),
        "bodyPartExamined": [one.get("bodyPartExamined") for one in series],
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
        if one.get("hasPrimaryFrames", True) and one.get("modality") not in _SECONDARY_MODALITIES
    )
    chosen = next(primary, next(iter(shown), None))
    return chosen and chosen["thumbnail"]


def _study_attributes(statements: Sequence[Statement]) -> dict[str, Any]:
    """Return what is shown of a study, and what filters and orders use: all that its files say."""
    study = resolve_study(statements)
    names = [study["patientName"], *values_of(statements, "patientName")]
    accession_numbers = values_of(statements, "accessionNumber")
    date, time = study["studyDate"], study["studyTime"]
    return {
        **study,
        "demographicsOfFiles": [one.attributes for one in merge(statements, DEMOGRAPHICS)],
        "accessionNumbers": accession_numbers,
        "nameWords": _words(names),
        "searchWords": _words(
            [
                *names,
                study["patientID"],
                *accession_numbers,
                *values_of(statements, "studyDescription"),
            ]
        ),
        "orderStudyDate": f"{date}T{time or ''}" if date else "",
        "orderPatientName": fold(study["patientName"]),
        "orderAccessionNumber": study["accessionNumber"] or "",
    }


def patient_pipeline(patient_ids: Sequence[str]) -> Pipeline:
    """Return the aggregation over studies that `patient_content` reads, one row per patient."""
    return [
        {"$match": {"orthancPatientId": {"$in": list(patient_ids)}}},
        {
            "$unwind": {
                "path": "$demographicsOfFiles",
                "includeArrayIndex": "position",
                "preserveNullAndEmptyArrays": True,
            }
        },
        {
            "$group": {
                "_id": {"patient": "$orthancPatientId", "said": "$demographicsOfFiles"},
                "studies": {"$sum": {"$cond": [{"$in": ["$position", [0, None]]}, 1, 0]}},
                "latest": {"$max": _STUDY_THAT_CAME_LAST},
            }
        },
        {"$sort": {"latest": -1, "_id": 1}},
        {
            "$group": {
                "_id": "$_id.patient",
                "numberOfStudies": {"$sum": "$studies"},
                "latest": {"$first": "$latest"},
                "demographics": {"$push": "$_id.said"},
            }
        },
        {"$set": {"demographics": {"$slice": ["$demographics", MAX_STATEMENTS]}}},
    ]


WRONG_PATIENTS: Pipeline = [
    {"$group": {"_id": "$orthancPatientId", "missing": {"$sum": 1}}},
    {
        "$unionWith": {
            "coll": PatientDocument.Settings.name,
            "pipeline": [{"$project": {"missing": {"$subtract": [0, "$numberOfStudies"]}}}],
        }
    },
    {"$group": {"_id": "$_id", "missing": {"$sum": "$missing"}}},
    {"$match": {"missing": {"$ne": 0}}},
]
"""The aggregation over studies that finds the patients with another number of studies than they
say, those without any included."""

_STUDY_THAT_CAME_LAST: Mapping[str, str] = {
    "latestIndexedAt": "$latestIndexedAt",
    "_id": "$_id",
    "patientID": "$patientID",
    **{name: f"${name}" for name in DEMOGRAPHICS},
}
"""MongoDB compares documents field by field, in this order."""


def patient_content(row: Fields) -> dict[str, Any]:
    """Turn a row of `patient_pipeline` into the document of a patient."""
    latest, said = row["latest"], row["demographics"]
    shown = {name: latest.get(name) for name in DEMOGRAPHICS}
    name = shown["patientName"]
    return {
        "patientID": latest["patientID"],
        **shown,
        "numberOfStudies": row["numberOfStudies"],
        "hasConflictingDemographics": are_contradictory(said),
        "nameWords": _words([name, *(one.get("patientName") for one in said)]),
        "orderPatientName": fold(name),
    }


def _series_order(series: Fields) -> tuple[bool, int, str]:
    number = series.get("seriesNumber")
    # MongoDB orders null before numbers; thumbnails follow the order that trees show.
    return (number is not None, number or 0, series["seriesInstanceUID"])


def _words(texts: Iterable[str | None]) -> list[str]:
    words = dict.fromkeys(word for text in texts for word in search_words(text))
    return sorted(list(words)[:_MAX_WORDS])
