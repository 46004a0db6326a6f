"""Frames numbered through a whole study, as by clients of the previous system."""

from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from models import InstanceDocument, SeriesDocument, StudyDocument
from models.instance import EARLIER_ORDER, instance_sort
from models.stored import stored_name
from services.auth.scope import Scope
from services.database import readable, translated_database_faults
from services.errors import AmbiguousStudy, FrameNotFound
from services.query.visibility import both, studies_within

_NUMBER_OF_FRAMES = stored_name(InstanceDocument.number_of_frames)
_ORTHANC_SERIES_ID = stored_name(InstanceDocument.orthanc_series_id)
_ORTHANC_STUDY_ID = stored_name(InstanceDocument.orthanc_study_id)
_SERIES_INSTANCE_UID = stored_name(SeriesDocument.series_instance_uid)
_SERIES_NUMBER = stored_name(SeriesDocument.series_number)
_STACK_ORDER = stored_name(SeriesDocument.stack_order)
_STUDY_INSTANCE_UID = stored_name(StudyDocument.study_instance_uid)


_SERIES_ORDER = ((_SERIES_NUMBER, 1), (_SERIES_INSTANCE_UID, 1))


async def find_study_frame(
    database: AsyncDatabase[dict[str, Any]],
    study_instance_uid: str,
    frame_index: int,
    *,
    scope: Scope,
) -> tuple[InstanceDocument, int]:
    """Find a frame by its position in a study.

    Frames are ordered by series number, SeriesInstanceUID, the order of the stack and frame.

    Args:
        database: MongoDB.
        study_instance_uid: The study.
        frame_index: 0-based, over all renderable frames of the study.
        scope: Of the caller; studies outside are not found.

    Returns:
        The instance, and the 0-based index within it.

    Raises:
        FrameNotFound: The study or the frame does not exist.
        AmbiguousStudy: Several patients have a study with this UID within the scope.
        DatabaseUnavailable: MongoDB does not answer.
    """
    with translated_database_faults():
        studies = readable(database[StudyDocument.Settings.name])
        within = both({_STUDY_INSTANCE_UID: study_instance_uid}, studies_within(scope))
        found = studies.find(within, ("_id",), limit=2)
        ids = [study["_id"] async for study in found]
        if len(ids) > 1:
            raise AmbiguousStudy
        if not ids or frame_index < 0:
            raise FrameNotFound
        series, remaining = await _find_series(database, ids[0], frame_index)
        instances = readable(database[InstanceDocument.Settings.name])
        members = instances.find({_ORTHANC_SERIES_ID: series["_id"]}, (_NUMBER_OF_FRAMES,))
        async for member in members.sort(instance_sort(series.get(_STACK_ORDER, EARLIER_ORDER))):
            if remaining < member[_NUMBER_OF_FRAMES]:
                instance = await instances.find_one({"_id": member["_id"]})
                if instance is None:
                    break
                return InstanceDocument.model_validate(instance), remaining
            remaining -= member[_NUMBER_OF_FRAMES]
    raise FrameNotFound


async def _find_series(
    database: AsyncDatabase[dict[str, Any]], study_id: str, frame_index: int
) -> tuple[dict[str, Any], int]:
    """Return the series that holds a frame of its study, and the index within the series."""
    found = readable(database[SeriesDocument.Settings.name]).find(
        {_ORTHANC_STUDY_ID: study_id}, (_NUMBER_OF_FRAMES, _STACK_ORDER)
    )
    remaining = frame_index
    async for series in found.sort(_SERIES_ORDER):
        if remaining < series[_NUMBER_OF_FRAMES]:
            return series, remaining
        remaining -= series[_NUMBER_OF_FRAMES]
    raise FrameNotFound
