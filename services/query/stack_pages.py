"""Pages of the frames of a series in the order of its stack.

A cursor contains the order of its list. The order of a series may change while images arrive; the
following pages then keep the order of the first page, so that no frame is missed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models import InstanceDocument
from models.instance import EARLIER_ORDER, INSTANCE_ORDERS, instance_sort
from models.stored import stored_name
from services.errors import InvalidInput
from services.query.paging import NO_CURSOR, pack_cursor, unpack_cursor

_NUMBER_OF_FRAMES = stored_name(InstanceDocument.number_of_frames)
_ORTHANC_SERIES_ID = stored_name(InstanceDocument.orthanc_series_id)
_ORTHANC_STUDY_ID = stored_name(InstanceDocument.orthanc_study_id)
_SOP_INSTANCE_UID = stored_name(InstanceDocument.sop_instance_uid)


StoredFields = Mapping[str, Any]

_INTEGER_LIMIT = 2**32
"""InstanceNumber has 32 bits (PS3.5 6.2)."""


@dataclass(frozen=True, slots=True)
class FramesRequest:
    """The requested frames: `first` after a cursor."""

    first: int
    after: str | None = None


@dataclass(frozen=True, slots=True)
class PlacedFrame:
    """A frame of a stack.

    Attributes:
        instance: Stored fields: `_id`, `revision` and the sort keys.
        index: 0-based within the instance.
        cursor: Its position.
    """

    instance: StoredFields
    index: int
    cursor: str


@dataclass(frozen=True, slots=True)
class FramePage:
    """A page of frames."""

    frames: Sequence[PlacedFrame]
    has_next_page: bool
    has_previous_page: bool


@dataclass(frozen=True, slots=True)
class FramesPlan:
    """How to read a page of the frames of a series.

    Attributes:
        order: Stored name of the key by which the list is sorted.
        stages: An aggregation of the instances of a series.
        first: Frames of the page.
        after: Instance, by SOPInstanceUID, and index of the frame before the page.
    """

    order: str
    stages: Sequence[Mapping[str, Any]]
    first: int
    after: tuple[str, int] | None


def plan_frames(request: FramesRequest, order: str, *, max_size: int) -> FramesPlan:
    """Plan the reading of a page of frames.

    Args:
        request: The requested frames.
        order: Of the stack; a cursor contains its own.
        max_size: Largest page.

    Raises:
        InvalidInput: The size is negative or too large, or the cursor belongs to another list.
    """
    if not 0 <= request.first <= max_size:
        raise InvalidInput(f"A page holds 0 to {max_size} entries; {request.first} were asked for.")
    after: tuple[str, int] | None = None
    beyond: Mapping[str, Any] = {}
    if request.after is not None:
        order, key, uid, index = _read_cursor(request.after)
        after = (uid, index)
        behind = {"$ne": None} if key is None else {"$gt": key}
        beyond = {"$or": [{order: behind}, {order: key, _SOP_INSTANCE_UID: {"$gte": uid}}]}
    stages: list[Mapping[str, Any]] = [
        {"$match": {_NUMBER_OF_FRAMES: {"$gt": 0}, **beyond}},
        {"$sort": instance_sort(order)},
        # Each has a frame, but the last frame of the cursor's instance may precede the page.
        {"$limit": request.first + 2},
        {
            "$project": {
                _ORTHANC_SERIES_ID: 1,
                _ORTHANC_STUDY_ID: 1,
                "revision": 1,
                _NUMBER_OF_FRAMES: 1,
                _SOP_INSTANCE_UID: 1,
                order: 1,
            }
        },
    ]
    return FramesPlan(order, stages, request.first, after)


def make_frame_page(plan: FramesPlan, instances: Sequence[StoredFields]) -> FramePage:
    """Make a page of frames of the instances that were read."""
    frames: list[PlacedFrame] = []
    for instance, index in _frames(instances, plan.after):
        if len(frames) == plan.first:
            return FramePage(frames, has_next_page=True, has_previous_page=plan.after is not None)
        uid = instance[_SOP_INSTANCE_UID]
        cursor = pack_cursor([plan.order, instance.get(plan.order), uid, index])
        frames.append(PlacedFrame(instance, index, cursor))
    return FramePage(frames, has_next_page=False, has_previous_page=plan.after is not None)


def _frames(
    instances: Sequence[StoredFields], after: tuple[str, int] | None
) -> Iterator[tuple[StoredFields, int]]:
    for instance in instances:
        is_named = after is not None and after[0] == instance[_SOP_INSTANCE_UID]
        start = after[1] + 1 if after is not None and is_named else 0
        for index in range(start, instance[_NUMBER_OF_FRAMES]):
            yield instance, index


def _read_cursor(cursor: str) -> tuple[str, str | int | None, str, int]:
    match unpack_cursor(cursor):
        case [str(order), (str() | int() | None) as key, str(uid), int(index)] if (
            order in (*INSTANCE_ORDERS, EARLIER_ORDER) and index >= 0
        ):
            if isinstance(key, int) and not abs(key) < _INTEGER_LIMIT:
                raise InvalidInput(NO_CURSOR, argument="after")
            return order, key, uid, index
    raise InvalidInput(NO_CURSOR, argument="after")
