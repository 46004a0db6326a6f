"""The order of a stack: the sort keys of each instance, and the choice of one for its series.

Every key depends on one instance only, so it is written once and never changes when other images
arrive. Which key orders a series depends on all its instances; it is stored in `SeriesDocument`:

- `stackKey` is the spatial order: orientation, temporal position, echo, position along the normal.
  It is used if every slice has a position and an orientation. AcquisitionNumber comes after the
  position, because many scanners increment it with each slice of one stack.
- `groupedStackKey` has AcquisitionNumber and ImageType before the position. It is used if positions
  repeat, and acquisitions or image types distinguish the slices at one position.
- `timeKey` starts with the acquisition time: for phases that only their time distinguishes.
- `numberKey` is InstanceNumber, then acquisition time: for all other series.

SOPInstanceUID decides between equal keys. Sources: PS3.3 C.7.6.2 (position and orientation),
C.7.6.1 (numbers and times), C.7.6.16.2.2.6 (temporal positions).
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from models import InstanceDocument
from models.instance import (
    ACQUISITION_TIME_ORDER,
    EARLIER_ORDER,
    GROUPED_STACK_ORDER,
    INSTANCE_NUMBER_ORDER,
    STACK_ORDER,
)
from models.stored import stored_name
from services.dicom.header import GeometryModule, InstanceHeader

_NUMBER_OF_FRAMES = stored_name(InstanceDocument.number_of_frames)
_ORTHANC_SERIES_ID = stored_name(InstanceDocument.orthanc_series_id)


Pipeline = list[Mapping[str, Any]]

_ABSENT = "~"
"""Sorts after all digits and letters, so that absent values come last."""

_INTEGER = 8
_TIME = 26
_POSITION = 10
_KIND = 6
_ORIENTATION = 13
_PLACE = _ORIENTATION + 2 * _INTEGER + _POSITION
"""Lengths of the parts of keys, in characters. Instances whose `stackKey` begins with the same
`_PLACE` characters show the same position in the same phase and echo."""

_POSITIONS_PER_MM = 100
"""Positions that differ by less than 0.01 mm count as equal."""
_FARTHEST_MM = 1e7

_COSINE_STEP = 0.02
"""Cosines are compared in steps of about one degree, because scanners write them with noise."""
_COSINE_SHIFT = 0.0137
"""Moves the boundaries between steps away from common values, such as 0, 0.5 and 1."""

_LOCALIZERS = 3
"""Most orientations of a usual localizer series; a series with more rotates around an axis."""


def order_keys(header: InstanceHeader) -> dict[str, str]:
    """Return the sortable keys of an instance, by stored names."""
    acquisition = header.acquisition
    time = _time(acquisition.acquisition_date_time)
    number = _integer(header.instance_number)
    by_number = number + time
    placed = _place(header.geometry)
    if placed is None:
        unplaced = _ABSENT + by_number
        return {
            STACK_ORDER: unplaced,
            GROUPED_STACK_ORDER: unplaced,
            ACQUISITION_TIME_ORDER: time + unplaced,
            INSTANCE_NUMBER_ORDER: by_number,
        }
    orientation, position = placed
    acquired = _integer(acquisition.acquisition_number)
    phase = _integer(acquisition.temporal_position_identifier)
    echo = _integer(next(iter(acquisition.echo_numbers), None))
    place = orientation + phase + echo + position
    return {
        STACK_ORDER: place + acquired + by_number,
        GROUPED_STACK_ORDER: (
            orientation + acquired + _kind(acquisition.image_type) + phase + echo + position
        )
        + by_number,
        ACQUISITION_TIME_ORDER: time + place + number,
        INSTANCE_NUMBER_ORDER: by_number,
    }


def _place(geometry: GeometryModule) -> tuple[str, str] | None:
    """Return the orientation, and the position along its normal; None where one is unknown."""
    cosines, position = geometry.image_orientation_patient, geometry.image_position_patient
    if cosines is None or position is None or (len(cosines), len(position)) != (6, 3):
        return None
    (a, b, c), (d, e, f) = cosines[:3], cosines[3:]
    normal = (b * f - c * e, c * d - a * f, a * e - b * d)
    length = math.hypot(*normal)
    # The cosines are two perpendicular unit vectors, so their cross product has about length 1.
    if not 0.5 < length < 2:  # noqa: PLR2004
        return None
    along = sum(x * y for x, y in zip(normal, position, strict=True)) / length
    if not abs(along) < _FARTHEST_MM:
        return None
    steps = round((along + _FARTHEST_MM) * _POSITIONS_PER_MM)
    # Axial, coronal and sagittal stacks in this order, as in most protocols.
    _, y, z = map(abs, normal)
    plane = 0 if z == max(map(abs, normal)) else 1 if y == max(map(abs, normal)) else 2
    return (
        f"{plane}" + "".join(map(_cosine, cosines)),
        f"{steps:0{_POSITION}d}",
    )


def _cosine(value: float) -> str:
    step = math.floor((value + _COSINE_SHIFT) / _COSINE_STEP)
    return f"{min(max(step, -127), 127) + 128:02x}"


def _integer(value: int | None) -> str:
    """Return a signed 32-bit number as text that sorts like the number."""
    return _ABSENT * _INTEGER if value is None else f"{value + 2**31:08x}"


def _time(moment: str | None) -> str:
    if moment is None:
        return _ABSENT * _TIME
    return moment[:_TIME].ljust(_TIME)


def _kind(image_type: Sequence[str]) -> str:
    """Return a digest, which separates image types; their order does not matter."""
    return hashlib.blake2b("\\".join(image_type).encode(), digest_size=3).hexdigest()


def facts_pipeline(series_ids: Sequence[str]) -> Pipeline:
    """Return the aggregation over instances that `choose_order` reads, one row per series.

    Instances without frames are not slices: a report in the series does not affect the order.
    """
    distinct = {
        "places": _part(STACK_ORDER, 0, _PLACE),
        "orientations": _part(STACK_ORDER, 0, _ORIENTATION),
        "groups": _part(GROUPED_STACK_ORDER, _ORIENTATION, _INTEGER + _KIND),
        "groupedPlaces": _part(GROUPED_STACK_ORDER, 0, _PLACE + _INTEGER + _KIND),
        "times": _part(ACQUISITION_TIME_ORDER, 0, _TIME),
        "timedPlaces": _part(ACQUISITION_TIME_ORDER, 0, _TIME + _PLACE),
        "numbers": _part(INSTANCE_NUMBER_ORDER, 0, _INTEGER),
    }
    has_frames = {"$gt": [f"${_NUMBER_OF_FRAMES}", 0]}
    return [
        {"$match": {_ORTHANC_SERIES_ID: {"$in": list(series_ids)}}},
        {
            "$group": {
                "_id": f"${_ORTHANC_SERIES_ID}",
                "slices": {"$sum": {"$cond": [has_frames, 1, 0]}},
                "withoutPlace": _count(
                    {"$and": [has_frames, {"$eq": [_part(STACK_ORDER, 0, 1), _ABSENT]}]}
                ),
                "withoutKeys": _count({"$eq": [{"$ifNull": [f"${STACK_ORDER}", ""]}, ""]}),
                **{
                    name: {"$addToSet": {"$cond": [has_frames, part, "$$REMOVE"]}}
                    for name, part in distinct.items()
                },
            }
        },
        {"$set": {name: {"$size": f"${name}"} for name in distinct}},
    ]


def choose_order(facts: Mapping[str, int]) -> str:
    """Decide the order of a series.

    A group must hold two slices on average: if every slice has its own AcquisitionNumber or time,
    grouping by it would just sort by it.

    Args:
        facts: A row of `facts_pipeline`.

    Returns:
        The stored name of the key.
    """
    slices, places = facts["slices"], facts["places"]
    if facts["withoutKeys"]:
        return EARLIER_ORDER
    if facts["withoutPlace"] or not slices:
        return INSTANCE_NUMBER_ORDER
    is_radial = facts["orientations"] > _LOCALIZERS and 2 * facts["orientations"] > slices
    if places == slices and not is_radial:
        return STACK_ORDER
    by_group = facts["groupedPlaces"] if 2 * facts["groups"] <= slices else 0
    by_time = facts["timedPlaces"] if 2 * facts["times"] <= slices else 0
    if max(by_group, by_time) > places:
        return GROUPED_STACK_ORDER if by_group >= by_time else ACQUISITION_TIME_ORDER
    has_few_repeats = 10 * (slices - places) < slices and not is_radial
    if facts["numbers"] < slices or has_few_repeats:
        return STACK_ORDER
    # No attribute that is read distinguishes the repeats, for example the b-values of a diffusion
    # series: use the numbers that the scanner gave them.
    return INSTANCE_NUMBER_ORDER


def _part(key: str, start: int, characters: int) -> Mapping[str, Any]:
    return {"$substrBytes": [f"${key}", start, characters]}


def _count(condition: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"$sum": {"$cond": [condition, 1, 0]}}
