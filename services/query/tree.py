"""The levels of a study tree: one MongoDB command for any number of parents.

A tree belongs to a scope (`services.auth.scope`): objects outside are never found. A scope of
labels needs another command for series and instances whose study was not read before. It is also
sent if nothing was found, so that the response time does not reveal what exists.
"""

from collections import defaultdict
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

from bson import decode_iter
from bson.codec_options import CodecOptions

from models import InstanceDocument, PatientDocument, SeriesDocument, StudyDocument
from models.instance import STACK_ORDER, instance_sort
from models.stored import StoredDocument, stored_name
from services.auth.scope import Scope
from services.database import CollectionCount, readable, translated_database_faults
from services.dicom.values import clean_identifier
from services.index.aggregations import patient_content, patient_pipeline
from services.orthanc.identifiers import orthanc_patient_id
from services.query.paging import Order, Page, PageRequest, make_page, plan_page
from services.query.stack_pages import FramePage, FramesRequest, make_frame_page, plan_frames
from services.query.turns import CooperativeExecution
from services.query.visibility import both, objects_within, studies_within

_INDEXED_AT = stored_name(InstanceDocument.indexed_at)
_ORTHANC_PATIENT_ID = stored_name(InstanceDocument.orthanc_patient_id)
_ORTHANC_SERIES_ID = stored_name(InstanceDocument.orthanc_series_id)
_ORTHANC_STUDY_ID = stored_name(InstanceDocument.orthanc_study_id)
_SOP_INSTANCE_UID = stored_name(InstanceDocument.sop_instance_uid)
_LATEST_INDEXED_AT = stored_name(SeriesDocument.latest_indexed_at)
_NUMBER_OF_INSTANCES = stored_name(SeriesDocument.number_of_instances)
_SERIES_INSTANCE_UID = stored_name(SeriesDocument.series_instance_uid)
_SERIES_NUMBER = stored_name(SeriesDocument.series_number)
_STUDY_STATEMENTS = stored_name(SeriesDocument.study_statements)
_MODALITIES_IN_STUDY = stored_name(StudyDocument.modalities_in_study)
_ORDER_STUDY_DATE = stored_name(StudyDocument.order_study_date)
_STUDY_INSTANCE_UID = stored_name(StudyDocument.study_instance_uid)
_UPDATED_AT = stored_name(StudyDocument.updated_at)


StoredFields = Mapping[str, Any]

_K = TypeVar("_K", bound=str)

_WHOLE_LEVEL = 1_000_000
"""Batch size with which one command returns a level, up to MongoDB's 16 MB for an answer."""

_IDENTIFIER_MAX_CHARACTERS = 1024
"""Longest identifier: 64 characters (PS3.5 6.2), and some more in files that violate the rule."""

_JOINED_AT_ONCE = 2_000
"""Children in one answer of MongoDB: decoded within a turn."""

_DECODED_AT_ONCE = 64
"""Documents between two checks of the clock: some take 100 kB."""

_WITHOUT_STATEMENTS: Mapping[str, int] = {_STUDY_STATEMENTS: 0}
"""Fields of a series that only roll-ups read."""

INSTANCE_SHOWN: Mapping[str, int] = dict.fromkeys(
    [
        stored_name(field)
        for field in (
            InstanceDocument.orthanc_series_id,
            InstanceDocument.orthanc_study_id,
            InstanceDocument.revision,
            InstanceDocument.use_orthanc_preview,
            InstanceDocument.sop_instance_uid,
            InstanceDocument.sop_class_uid,
            InstanceDocument.transfer_syntax_uid,
            InstanceDocument.instance_number,
            InstanceDocument.rows,
            InstanceDocument.columns,
            InstanceDocument.bits_allocated,
            InstanceDocument.photometric_interpretation,
            InstanceDocument.window_center,
            InstanceDocument.window_width,
            InstanceDocument.windows,
            InstanceDocument.rescale_slope,
            InstanceDocument.rescale_intercept,
            InstanceDocument.rescale_type,
            InstanceDocument.lossy_image_compression,
            InstanceDocument.lossy_image_compression_ratio,
            InstanceDocument.burned_in_annotation,
            InstanceDocument.frame_time,
            InstanceDocument.recommended_display_frame_rate,
            InstanceDocument.pixel_spacing,
            InstanceDocument.imager_pixel_spacing,
            InstanceDocument.pixel_aspect_ratio,
            InstanceDocument.image_position_patient,
            InstanceDocument.image_orientation_patient,
            InstanceDocument.frame_of_reference_uid,
            InstanceDocument.slice_location,
            InstanceDocument.slice_thickness,
            InstanceDocument.spacing_between_slices,
            InstanceDocument.laterality,
            InstanceDocument.view_position,
            InstanceDocument.patient_orientation,
            InstanceDocument.acquisition_number,
            InstanceDocument.acquisition_date_time,
            InstanceDocument.echo_numbers,
            InstanceDocument.temporal_position_identifier,
            InstanceDocument.image_type,
            InstanceDocument.file_size_bytes,
            InstanceDocument.number_of_frames,
            InstanceDocument.not_renderable_reason,
        )
    ],
    1,
)
"""Stored fields of an instance that a tree shows, without its attributes of study and series."""

NEWEST_STUDY_FIRST = Order(_ORDER_STUDY_DATE, ascending=False)


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a list by position.

    Attributes:
        offset: 0-based position of the first.
        first: Most objects; None for all.
    """

    offset: int = 0
    first: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole list."""
        return self.offset == 0 and self.first is None

    def length_of(self, count: int) -> int:
        """Return how many of `count` objects are in the part."""
        left = max(0, count - self.offset)
        return left if self.first is None else min(self.first, left)


class OrderedSeries(NamedTuple):
    """A series and the order in which its instances are read.

    Attributes:
        id: Orthanc's identifier.
        order: One of `models.instance.INSTANCE_ORDERS`.
    """

    id: str
    order: str


class Priors(NamedTuple):
    """The requested earlier studies.

    Attributes:
        first: Most studies, above 0.
        modality: Only studies with a series of this modality; None for all.
    """

    first: int
    modality: str | None


class Trees:
    """Makes the tree of each scope.

    Args:
        page_max_size: Largest page, in entries.
        max_seconds: Longest time that MongoDB may work on one command.
    """

    def __init__(self, *, page_max_size: int, max_seconds: float) -> None:
        self._page_max_size = page_max_size
        self._max_seconds = max_seconds
        self._counts: dict[type[StoredDocument], CollectionCount] = {}

    def within(self, scope: Scope) -> "Tree":
        """Return the tree of a scope, for one operation: it caches which studies are visible."""
        return Tree(
            scope,
            page_max_size=self._page_max_size,
            max_seconds=self._max_seconds,
            counts=self._counts,
        )


class Tree:
    """Reads documents by identifier and children by parent.

    Args:
        scope: Of the caller.
        page_max_size: Largest page, in entries.
        max_seconds: Longest time that MongoDB may work on one command.
        counts: Of whole collections, filled by all trees.
    """

    def __init__(
        self,
        scope: Scope,
        *,
        page_max_size: int,
        max_seconds: float,
        counts: dict[type[StoredDocument], CollectionCount],
    ) -> None:
        self._scope = scope
        self._counts = counts
        self._page_max_size = page_max_size
        self._max_milliseconds = max(1, int(max_seconds * 1000))
        self._visible_study_ids: set[str] = set()

    async def patients(self, ids: Sequence[str]) -> list[StoredFields | None]:
        """Read patients, in the order of their ids; None for unknown ones.

        Within a limited scope a patient has only the data of the studies in the scope.
        """
        if self._scope.is_all:
            return await self._by_id(PatientDocument, ids)
        rows = await self._aggregate(
            StudyDocument, [{"$match": studies_within(self._scope)}, *patient_pipeline(ids)]
        )
        by_id = {row["_id"]: {"_id": row["_id"], **patient_content(row)} for row in rows}
        return [by_id.get(identifier) for identifier in ids]

    async def studies(self, ids: Sequence[str]) -> list[StoredFields | None]:
        """Read studies, in the order of their ids; None for unknown ones."""
        return await self._by_id(StudyDocument, ids)

    async def series(self, ids: Sequence[str]) -> list[StoredFields | None]:
        """Read series, in the order of their ids; None for unknown ones."""
        return await self._by_id(SeriesDocument, ids)

    async def instances(self, ids: Sequence[str]) -> list[StoredFields | None]:
        """Read instances, in the order of their ids; None for unknown ones."""
        return await self._by_id(InstanceDocument, ids)

    async def patient(self, patient_id: str) -> StoredFields | None:
        """Read a patient by PatientID, with or without padding; None for an unknown one."""
        if len(patient_id) > _IDENTIFIER_MAX_CHARACTERS:
            return None
        [found] = await self.patients([orthanc_patient_id(clean_identifier(patient_id))])
        return found

    async def study(self, study_instance_uid: str) -> StoredFields | None:
        """Read a study by StudyInstanceUID; of several, the one that changed last."""
        return await self._newest(
            StudyDocument, _STUDY_INSTANCE_UID, study_instance_uid, _UPDATED_AT
        )

    async def studies_of_uids(self, study_instance_uids: Sequence[str]) -> list[list[StoredFields]]:
        """Read the studies of each StudyInstanceUID, the one that changed last first."""
        found = await self._find(
            StudyDocument,
            {_STUDY_INSTANCE_UID: {"$in": list(study_instance_uids)}},
            {_UPDATED_AT: -1, "_id": 1},
        )
        return _grouped(found, _STUDY_INSTANCE_UID, study_instance_uids)

    async def one_series(self, series_instance_uid: str) -> StoredFields | None:
        """Read a series by SeriesInstanceUID; of several, the one that changed last."""
        return await self._newest(
            SeriesDocument, _SERIES_INSTANCE_UID, series_instance_uid, _LATEST_INDEXED_AT
        )

    async def instance(self, sop_instance_uid: str) -> StoredFields | None:
        """Read an instance by SOPInstanceUID; of several, the one that was indexed last."""
        return await self._newest(
            InstanceDocument, _SOP_INSTANCE_UID, sop_instance_uid, _INDEXED_AT
        )

    async def count_patients(self) -> int:
        """Count patients."""
        if self._scope.is_all:
            return await self._count(PatientDocument)
        groups: list[Mapping[str, Any]] = [
            {"$group": {"_id": f"${_ORTHANC_PATIENT_ID}"}},
            {"$count": "total"},
        ]
        return await self._total_of_studies(groups)

    async def count_studies(self) -> int:
        """Count studies."""
        if self._scope.is_all:
            return await self._count(StudyDocument)
        return await self._total_of_studies([{"$count": "total"}])

    async def count_instances(self) -> int:
        """Count instances."""
        if self._scope.is_all:
            return await self._count(InstanceDocument)
        added = {"_id": None, "total": {"$sum": f"${_NUMBER_OF_INSTANCES}"}}
        return await self._total_of_studies([{"$group": added}])

    async def series_of_studies(self, study_ids: Sequence[str]) -> list[list[StoredFields]]:
        """Read the series of each study, by seriesNumber, then seriesInstanceUID."""
        found = await self._find(
            SeriesDocument,
            {_ORTHANC_STUDY_ID: {"$in": list(study_ids)}},
            {_SERIES_NUMBER: 1, _SERIES_INSTANCE_UID: 1},
            _WITHOUT_STATEMENTS,
        )
        return _grouped(found, _ORTHANC_STUDY_ID, study_ids)

    async def instances_of_series(
        self, series: Sequence[OrderedSeries], part: Slice
    ) -> list[list[StoredFields]]:
        """Read the instances at the same positions of each series, each in its own order.

        Whole series need one command for any number of series; parts need one for each order.
        """
        ids = [one.id for one in series]
        if part.is_whole:
            # The keys are long, so only those that are needed for sorting here are read.
            others = {one.order for one in series} - {STACK_ORDER}
            found = await self._find(
                InstanceDocument,
                {_ORTHANC_SERIES_ID: {"$in": ids}},
                {_ORTHANC_SERIES_ID: 1, **instance_sort(STACK_ORDER)},
                {**INSTANCE_SHOWN, **dict.fromkeys(others, 1)},
            )
            grouped = _grouped(found, _ORTHANC_SERIES_ID, ids)
            return [
                _ordered(instances, one.order)
                for one, instances in zip(series, grouped, strict=True)
            ]
        instances: list[dict[str, Any]] = []
        for order in sorted({one.order for one in series}):
            stages: list[dict[str, Any]] = [
                {"$sort": instance_sort(order)},
                {"$skip": part.offset},
                *([] if part.first is None else [{"$limit": part.first}]),
                {"$project": INSTANCE_SHOWN},
            ]
            members = [one.id for one in series if one.order == order]
            instances += await self._children(
                SeriesDocument, members, InstanceDocument, _ORTHANC_SERIES_ID, stages
            )
        return _grouped(instances, _ORTHANC_SERIES_ID, ids)

    async def studies_of_patients(
        self, patient_ids: Sequence[str], request: PageRequest
    ) -> list[Page]:
        """Read the same page of each patient's studies, newest first.

        Raises:
            InvalidInput: The page makes no sense.
        """
        plan = plan_page(request, NEWEST_STUDY_FIRST, max_size=self._page_max_size)
        within = both(studies_within(self._scope), plan.filter)
        stages: list[dict[str, Any]] = [{"$match": within}] if within else []
        stages += [{"$sort": dict(plan.sort)}, {"$limit": plan.limit}]
        found = await self._children(
            PatientDocument, patient_ids, StudyDocument, _ORTHANC_PATIENT_ID, stages
        )
        return [
            make_page(plan, NEWEST_STUDY_FIRST, studies)
            for studies in _grouped(found, _ORTHANC_PATIENT_ID, patient_ids)
        ]

    async def frames_of_series(
        self, series: Sequence[OrderedSeries], request: FramesRequest
    ) -> list[FramePage]:
        """Read the same page of the frames of each series, each in its own order.

        Raises:
            InvalidInput: The page makes no sense.
        """
        pages: dict[OrderedSeries, FramePage] = {}
        for order in sorted({one.order for one in series}):
            plan = plan_frames(request, order, max_size=self._page_max_size)
            members = [one for one in series if one.order == order]
            ids = [one.id for one in members]
            found = await self._children(
                SeriesDocument, ids, InstanceDocument, _ORTHANC_SERIES_ID, plan.stages
            )
            grouped = _grouped(found, _ORTHANC_SERIES_ID, ids)
            pages |= {
                one: make_frame_page(plan, instances)
                for one, instances in zip(members, grouped, strict=True)
            }
        return [pages[one] for one in series]

    async def priors_of_studies(
        self, study_ids: Sequence[str], asked: Priors
    ) -> list[list[StoredFields]]:
        """Read the earlier studies of each study's patient, newest first; one command for all.

        A study without a date has no earlier studies, and is not an earlier study.
        """
        modality = asked.modality
        found = await self._aggregate(
            StudyDocument,
            [
                {"$match": {"_id": {"$in": list(study_ids)}}},
                {
                    "$lookup": {
                        "from": StudyDocument.get_collection_name(),
                        "localField": _ORTHANC_PATIENT_ID,
                        "foreignField": _ORTHANC_PATIENT_ID,
                        "let": {"date": f"${_ORDER_STUDY_DATE}"},
                        "pipeline": [
                            {
                                "$match": both(
                                    {
                                        _ORDER_STUDY_DATE: {"$gt": ""},
                                        "$expr": {"$lt": [f"${_ORDER_STUDY_DATE}", "$$date"]},
                                    },
                                    {}
                                    if modality is None
                                    else {
                                        _MODALITIES_IN_STUDY: {"$in": [modality, modality.upper()]}
                                    },
                                    studies_within(self._scope),
                                )
                            },
                            {"$sort": {_ORDER_STUDY_DATE: -1, "_id": -1}},
                            {"$limit": asked.first},
                        ],
                        "as": "priors",
                    }
                },
                {"$project": {"priors": 1}},
            ],
        )
        priors = {row["_id"]: row["priors"] for row in found}
        return [priors.get(study_id, []) for study_id in study_ids]

    async def _newest(
        self, document: type[StoredDocument], field: str, value: str, changed: str
    ) -> StoredFields | None:
        """Read the document with a DICOM identifier; of several, the one that changed last."""
        if len(value) > _IDENTIFIER_MAX_CHARACTERS:
            return None
        if not self._scope.is_all:
            # The last of several may be outside the scope.
            found = await self._find(document, {field: value}, {changed: -1})
            return next(iter(found), None)
        with translated_database_faults():
            newest: StoredFields | None = await readable(
                document.get_pymongo_collection()
            ).find_one({field: value}, sort=[(changed, -1)], max_time_ms=self._max_milliseconds)
        return newest

    async def _by_id(
        self, document: type[StoredDocument], ids: Sequence[str]
    ) -> list[StoredFields | None]:
        found = await self._find(document, {"_id": {"$in": list(ids)}})
        by_id = {fields["_id"]: fields for fields in found}
        return [by_id.get(identifier) for identifier in ids]

    async def _find(
        self,
        document: type[StoredDocument],
        filter_: Mapping[str, Any],
        sort: Mapping[str, int] | None = None,
        projection: Mapping[str, int] | None = None,
    ) -> list[dict[str, Any]]:
        """Find documents within the scope; patients only if the scope is unlimited."""
        collection = readable(document.get_pymongo_collection())
        is_study = document is StudyDocument
        limit = studies_within(self._scope) if is_study else objects_within(self._scope)
        with translated_database_faults():
            cursor = collection.find_raw_batches(
                both(filter_, limit),
                projection,
                sort=list(sort.items()) if sort else None,
                batch_size=_WHOLE_LEVEL,
                max_time_ms=self._max_milliseconds,
            )
            found = await _decoded(cursor, collection.codec_options)
        if is_study:
            if self._scope.labels is not None:
                self._visible_study_ids.update(fields["_id"] for fields in found)
            return found
        return await self._visible(found)

    async def _children(
        self,
        parent: type[StoredDocument],
        parent_ids: Sequence[str],
        child: type[StoredDocument],
        field: str,
        stages: Sequence[Mapping[str, Any]],
    ) -> list[dict[str, Any]]:
        """Join the children that `stages` select, unwound, so that a parent may have over 16 MB."""
        pipeline: list[Mapping[str, Any]] = [
            {"$match": {"_id": {"$in": list(parent_ids)}}},
            {"$project": {"_id": 1}},
            {
                "$lookup": {
                    "from": child.get_collection_name(),
                    "localField": "_id",
                    "foreignField": field,
                    "pipeline": list(stages),
                    "as": "child",
                }
            },
            {"$unwind": "$child"},
            {"$replaceRoot": {"newRoot": "$child"}},
        ]
        children = await self._aggregate(parent, pipeline)
        return children if child is StudyDocument else await self._visible(children)

    async def _visible(self, objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the series or instances whose study is within the scope."""
        if self._scope.is_all:
            return objects
        study_ids = {fields[_ORTHANC_STUDY_ID] for fields in objects}
        visible = self._scope.study_ids or frozenset()
        if self._scope.labels is not None:
            if not study_ids or not study_ids <= self._visible_study_ids:
                await self._find(StudyDocument, {"_id": {"$in": list(study_ids)}}, None, {"_id": 1})
            visible = frozenset(study_ids & self._visible_study_ids)
        return [fields for fields in objects if fields[_ORTHANC_STUDY_ID] in visible]

    async def _total_of_studies(self, stages: Sequence[Mapping[str, Any]]) -> int:
        """Return the `total` of an aggregation over the studies of the scope."""
        rows = await self._aggregate(
            StudyDocument, [{"$match": studies_within(self._scope)}, *stages]
        )
        return int(rows[0]["total"]) if rows else 0

    async def _count(self, document: type[StoredDocument]) -> int:
        if document not in self._counts:
            self._counts[document] = CollectionCount(document.get_pymongo_collection())
        return await self._counts[document].read(max_milliseconds=self._max_milliseconds)

    async def _aggregate(
        self, document: type[StoredDocument], pipeline: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        with translated_database_faults():
            # Raw batches of an aggregation need another command, so each batch is decoded at once.
            cursor = await readable(document.get_pymongo_collection()).aggregate(
                pipeline, batchSize=_JOINED_AT_ONCE, maxTimeMS=self._max_milliseconds
            )
            return [row async for row in cursor]


async def _decoded(
    batches: AsyncIterable[bytes], options: CodecOptions[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Decode batches in turns: PyMongo would decode a batch of up to 16 MB in one call."""
    turns = CooperativeExecution()
    documents = []
    async for batch in batches:
        for document in decode_iter(batch, options):
            documents.append(document)
            if not len(documents) % _DECODED_AT_ONCE:
                await turns.yield_to_loop()
    return documents


def _ordered(instances: list[StoredFields], order: str) -> list[StoredFields]:
    """Sort instances; MongoDB has sorted them by `STACK_ORDER`, the most frequent order."""
    if order == STACK_ORDER:
        return instances
    return sorted(instances, key=partial(_sort_key, order))


def _sort_key(order: str, instance: StoredFields) -> tuple[bool, Any, str]:
    value = instance.get(order)
    return (value is not None, value, instance[_SOP_INSTANCE_UID])


def _grouped(
    found: Iterable[StoredFields], field: str, parent_ids: Sequence[_K]
) -> list[list[StoredFields]]:
    groups: dict[str, list[StoredFields]] = defaultdict(list)
    for fields in found:
        groups[fields[field]].append(fields)
    return [groups[parent_id] for parent_id in parent_ids]
