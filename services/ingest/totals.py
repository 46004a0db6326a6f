"""What a parent says about its children: computed from what is stored, never incremented."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from services.index.record import Fields

MAX_DEMOGRAPHICS = 16
"""Two show a conflict; a series of ten thousand names must not outgrow a document."""

Pipeline = list[Mapping[str, Any]]

SERIES_FIELDS = (
    "orthancStudyId",
    "seriesNumber",
    "seriesInstanceUID",
    "modality",
    "numberOfInstances",
    "numberOfFrames",
    "demographics",
    "thumbnail",
    "latestIndexedAt",
)
"""What `study_totals` reads of a series."""


def series_pipeline(series_ids: Sequence[str]) -> Pipeline:
    """Return the aggregation over instances that `series_totals` reads, one row per series.

    The sort is that of an index, so that MongoDB reads in order.
    """
    return [
        {"$match": {"orthancSeriesId": {"$in": list(series_ids)}}},
        {"$sort": {"orthancSeriesId": 1, "instanceNumber": 1, "sopInstanceUID": 1}},
        {
            "$group": {
                "_id": "$orthancSeriesId",
                "numberOfInstances": {"$sum": 1},
                "numberOfFrames": {"$sum": "$numberOfFrames"},
                "latestIndexedAt": {"$max": "$indexedAt"},
                "demographics": {
                    "$addToSet": {"name": "$patientName", "birthDate": "$patientBirthDate"}
                },
                "frames": {
                    "$push": {"i": "$_id", "r": "$revision", "n": "$numberOfFrames"},
                },
            }
        },
        {"$set": {"middle": {"$floor": {"$divide": ["$numberOfFrames", 2]}}}},
        {"$set": {"found": _INSTANCE_OF_MIDDLE_FRAME}},
        {"$unset": "frames"},
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


def series_totals(row: Fields) -> dict[str, Any]:
    """Turn a row of `series_pipeline` into the rolled-up part of a series document."""
    hit = row["found"]["hit"]
    thumbnail = hit and {
        "orthancInstanceId": hit["i"],
        "revision": hit["r"],
        "frameIndex": int(hit["f"]),
    }
    return {
        "numberOfInstances": row["numberOfInstances"],
        "numberOfFrames": row["numberOfFrames"],
        "demographics": _distinct(
            (pair.get("name"), pair.get("birthDate")) for pair in row["demographics"]
        ),
        "thumbnail": thumbnail,
        "latestIndexedAt": row["latestIndexedAt"],
    }


def study_totals(series: Sequence[Fields]) -> dict[str, Any]:
    """Roll the series of one study up.

    Args:
        series: With `SERIES_FIELDS`, at least one.
    """
    ordered = sorted(series, key=_series_order)
    return {
        "numberOfSeries": len(ordered),
        "numberOfInstances": sum(one["numberOfInstances"] for one in ordered),
        "numberOfFrames": sum(one["numberOfFrames"] for one in ordered),
        "modalitiesInStudy": sorted({one["modality"] for one in ordered if one.get("modality")}),
        "demographics": _distinct(pair for one in ordered for pair in one["demographics"]),
        "thumbnail": next((one["thumbnail"] for one in ordered if one.get("thumbnail")), None),
        "latestIndexedAt": max(
            (one["latestIndexedAt"] for one in ordered if one.get("latestIndexedAt")), default=None
        ),
    }


def patient_pipeline(patient_ids: Sequence[str]) -> Pipeline:
    """Return the aggregation over studies that `patient_content` reads, one row per patient."""
    return [
        {"$match": {"orthancPatientId": {"$in": list(patient_ids)}}},
        {
            "$group": {
                "_id": "$orthancPatientId",
                "numberOfStudies": {"$sum": 1},
                "latest": {"$max": _STUDY_THAT_CHANGED_LAST},
                "firstName": {"$min": {"$min": _all_demographics(0)}},
                "lastName": {"$max": {"$max": _all_demographics(0)}},
                "firstBirthDate": {"$min": {"$min": _all_demographics(1)}},
                "lastBirthDate": {"$max": {"$max": _all_demographics(1)}},
            }
        },
    ]


_STUDY_THAT_CHANGED_LAST: Mapping[str, str] = {
    "updatedAt": "$updatedAt",
    "_id": "$_id",
    "patientID": "$patientID",
    "patientName": "$patientName",
    "patientBirthDate": "$patientBirthDate",
    "patientSex": "$patientSex",
}
"""MongoDB compares documents field by field, in this order."""


def _all_demographics(position: int) -> Mapping[str, Any]:
    return {
        "$map": {"input": "$demographics", "in": {"$arrayElemAt": ["$$this", position]}},
    }


def patient_content(row: Fields) -> dict[str, Any]:
    """Turn a row of `patient_pipeline` into the document of a patient, without derived fields.

    A name or a birth date that is absent contradicts nothing.
    """
    latest = row["latest"]
    return {
        "patientID": latest["patientID"],
        "patientName": latest.get("patientName"),
        "patientBirthDate": latest.get("patientBirthDate"),
        "patientSex": latest.get("patientSex"),
        "numberOfStudies": row["numberOfStudies"],
        "hasConflictingDemographics": row["firstName"] != row["lastName"]
        or row["firstBirthDate"] != row["lastBirthDate"],
    }


def _series_order(series: Fields) -> tuple[bool, int, str]:
    number = series.get("seriesNumber")
    # MongoDB orders null before numbers; thumbnails follow the order that trees show.
    return (number is not None, number or 0, series["seriesInstanceUID"])


def _distinct(demographics: Iterable[Sequence[str | None]]) -> list[list[str | None]]:
    pairs = {(pair[0], pair[1]) for pair in demographics}
    ordered = sorted(pairs, key=lambda pair: tuple((part is not None, part or "") for part in pair))
    return [list(pair) for pair in ordered[:MAX_DEMOGRAPHICS]]
