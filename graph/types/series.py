"""Series: what one device acquired in one go."""

from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import strawberry

from graph.context import Info, Level
from graph.relay import Connection, Edge, Node, PageInfo, counted_once
from graph.types.frame import Frame, frame_of_thumbnail
from graph.types.instance import Instance
from graph.types.scalars import Date, Time
from graph.types.stored import FromStored, slice_of
from models import SeriesDocument, StoredDocument
from models.instance import (
    ACQUISITION_TIME_ORDER,
    EARLIER_ORDER,
    INSTANCE_NUMBER_ORDER,
    STACK_ORDER,
)
from services.errors import NotFound
from services.frames.signing import study_revision
from services.query.stack_pages import FramesRequest
from services.query.tree import OrderedSeries

if TYPE_CHECKING:
    from graph.types.study import Study


@strawberry.enum(description="What the instances of a series can be ordered by.")
class InstanceOrder(Enum):
    """Orders of instances, by their stored keys."""

    STACK = strawberry.enum_value(
        STACK_ORDER,
        description="In spatial order where every slice has position and orientation: along the "
        "normal, with orientations, acquisitions, echoes and phases one after the other. Else by "
        "`instanceNumber`, acquisition time, `sopInstanceUID`.",
    )
    INSTANCE_NUMBER = strawberry.enum_value(
        INSTANCE_NUMBER_ORDER,
        description="By `instanceNumber`, then acquisition time, then `sopInstanceUID`; those "
        "without a number last.",
    )
    ACQUISITION_TIME = strawberry.enum_value(
        ACQUISITION_TIME_ORDER,
        description="By acquisition time, then in spatial order; those without a time last.",
    )


@strawberry.type(description="A series of a study: instances of one modality that belong together.")
class Series(FromStored, Node):
    """One stored series."""

    document_class: ClassVar[type[StoredDocument]] = SeriesDocument
    identified_by: ClassVar[str] = "orthanc_series_id"
    type_name: ClassVar[Level] = "Series"

    orthanc_series_id: str = strawberry.field(
        description="Orthanc's identifier: the path `/series/{id}` of its REST API."
    )
    series_instance_uid: str = strawberry.field(description="SeriesInstanceUID (0020,000E).")
    series_number: int | None = strawberry.field(description="SeriesNumber (0020,0011).")
    modality: str | None = strawberry.field(
        description="Modality (0008,0060), such as `CT`, `MR` or `US`."
    )
    series_description: str | None = strawberry.field(description="SeriesDescription (0008,103E).")
    body_part_examined: str | None = strawberry.field(description="BodyPartExamined (0018,0015).")
    protocol_name: str | None = strawberry.field(description="ProtocolName (0018,1030).")
    manufacturer: str | None = strawberry.field(description="Manufacturer (0008,0070).")
    series_date: Date | None = strawberry.field(description="SeriesDate (0008,0021).")
    series_time: Time | None = strawberry.field(description="SeriesTime (0008,0031).")
    performing_physician_name: str | None = strawberry.field(
        description="PerformingPhysicianName (0008,1050), as stored: `Smith^Anna`."
    )
    station_name: str | None = strawberry.field(description="StationName (0008,1010).")
    number_of_instances: int = strawberry.field(description="Instances that are stored.")
    number_of_frames: int = strawberry.field(
        description="Frames of all its instances that can be shown."
    )
    total_bytes: float = strawberry.field(description="Size of its stored DICOM files, in bytes.")
    orthanc_study_id: strawberry.Private[str]
    stack_order: strawberry.Private[str]
    thumbnail: strawberry.Private[dict[str, Any] | None]

    @strawberry.field(description="The study that the series belongs to.")
    async def study(self, info: Info) -> Annotated["Study", strawberry.lazy("graph.types.study")]:
        """Load the study."""
        from graph.types.study import Study  # noqa: PLC0415  # the levels refer to each other

        return Study.from_found(await info.context.loaders.study_by_id.load(self.orthanc_study_id))

    @strawberry.field(
        description="The instances in the order of the stack, or in another one; all or a window "
        "of them."
    )
    async def instances(
        self,
        info: Info,
        first: Annotated[
            int | None, strawberry.argument(description="How many at most; all when absent.")
        ] = None,
        offset: Annotated[
            int, strawberry.argument(description="How many to pass over, from the first.")
        ] = 0,
        order_by: Annotated[
            InstanceOrder, strawberry.argument(description="Which order.")
        ] = InstanceOrder.STACK,
    ) -> list[Instance]:
        """Load the instances."""
        part = slice_of(first, offset)
        expected = part.length_of(self.number_of_instances)
        # Before they are read: a million documents fill the memory, however they are answered.
        info.context.count_nodes(expected)
        ordered = OrderedSeries(self.orthanc_series_id, self._order(order_by))
        stored = await info.context.loaders.instances_by_series.load((ordered, part))
        info.context.count_nodes(len(stored) - expected)
        return await info.context.turns.map(Instance.from_stored, stored)

    @strawberry.field(
        description="The frames of all instances as one list, in the order of the stack. A list "
        "that is read on by its cursor keeps the order that it began with while images arrive."
    )
    async def frames(
        self,
        info: Info,
        first: Annotated[int, strawberry.argument(description="How many at most.")] = 100,
        after: Annotated[
            str | None, strawberry.argument(description="Continue behind this cursor.")
        ] = None,
    ) -> Connection[Frame]:
        """Load a page of the frames."""
        expected = max(0, min(first, self.number_of_frames))
        info.context.count_nodes(expected)
        series = OrderedSeries(self.orthanc_series_id, self.stack_order)
        page = await info.context.loaders.frames_by_series.load(
            (series, FramesRequest(first, after))
        )
        info.context.count_nodes(max(0, len(page.frames) - expected))
        edges = [
            Edge(
                cursor=one.cursor,
                node=Frame.of(one.instance["_id"], one.instance["revision"], one.index),
            )
            for one in page.frames
        ]
        return Connection(
            edges=edges,
            page_info=PageInfo(
                has_next_page=page.has_next_page,
                has_previous_page=page.has_previous_page,
                start_cursor=edges[0].cursor if edges else None,
                end_cursor=edges[-1].cursor if edges else None,
            ),
            count=counted_once(self._count_frames),
        )

    @strawberry.field(
        name="thumbnail",
        description="The middle frame of the series; null when it has no frame to show.",
    )
    def thumbnail_frame(self) -> Frame | None:
        """Return the frame that stands for the series."""
        return frame_of_thumbnail(self.thumbnail)

    @strawberry.field(
        description="A signed URL of the series as ZIP archive, as `Study.archiveUrl`: it works in "
        "a link, with no header and no cookie, and ends with the deletion of the study."
    )
    async def archive_url(self, info: Info) -> str:
        """Mint the URL."""
        context = info.context
        context.require_download()
        study = await context.loaders.study_by_id.load(self.orthanc_study_id)
        if study is None:
            raise NotFound("The study of this series was deleted a moment ago.")
        context.accesses.minted["Series.archiveUrl"] += 1
        signed = context.runtime.frames.signer.series_archive_path(
            self.orthanc_series_id,
            self.orthanc_study_id,
            study_revision(study["createdAt"]),
            now=context.now(),
            grant=context.grant,
        )
        return context.base_url + signed.path

    async def _count_frames(self) -> int:
        return self.number_of_frames

    def _order(self, asked: InstanceOrder) -> str:
        """Return the stored name of the key to order instances by."""
        if asked is InstanceOrder.STACK or self.stack_order == EARLIER_ORDER:
            return self.stack_order
        return str(asked.value)
