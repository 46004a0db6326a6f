"""Frames: the pictures of an instance, as signed URLs."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import strawberry

from graph.context import Info
from graph.relay import Node, encode_node_id, frame_local_id
from services.dicom.display import SHOWN_AS_STORED
from services.frames.records import FrameAttributes, indexed_attributes
from services.frames.statistics import Ellipse
from services.frames.variant import FrameVariant, PictureFormat
from services.query.tree import Slice

_DEFAULT_VARIANT = FrameVariant()

strawberry.enum(
    PictureFormat,
    description="How a picture is encoded. JPEG is lossy: for previews, thumbnails, and cine on "
    "slow connections.",
)


@strawberry.type(
    description="A window: which values of the modality LUT are shown from black to white (PS3.3 "
    "C.11.2)."
)
class Window:
    """One window of a file."""

    center: float = strawberry.field(
        description="WindowCenter (0028,1050), in output units of the modality LUT."
    )
    width: float = strawberry.field(description="WindowWidth (0028,1051), in the same units.")
    explanation: str | None = strawberry.field(
        description="WindowCenterWidthExplanation (0028,1055), such as `BONE`."
    )
    function: str = strawberry.field(
        description="VOILUTFunction (0028,1056): `LINEAR`, `LINEAR_EXACT` or `SIGMOID`."
    )


@strawberry.input(
    description="An ellipse on a frame, whose axes are those of the frame. Coordinates are in "
    "pixels from the upper left corner of the first pixel, whose center is at 0.5."
)
class EllipseInput:
    """A region of a frame."""

    column: float = strawberry.field(description="Of the center, along the rows.")
    row: float = strawberry.field(description="Of the center, down the columns.")
    radius_columns: float = strawberry.field(description="Half its width; 0 or more.")
    radius_rows: float = strawberry.field(description="Half its height; 0 or more.")


@strawberry.type(
    description="What the values of a region are: outputs of the modality LUT (PS3.3 C.11.1), such "
    "as Hounsfield units, not grey levels. Not for diagnosis."
)
class RegionStatistics:
    """Statistics of a region of a frame."""

    mean: float = strawberry.field(description="Mean of the values.")
    standard_deviation: float = strawberry.field(description="Of all pixels of the region.")
    minimum: float = strawberry.field(description="The smallest value.")
    maximum: float = strawberry.field(description="The largest value.")
    number_of_pixels: int = strawberry.field(description="Pixels whose centers lie in the region.")
    unit: str | None = strawberry.field(
        description="RescaleType (0028,1054), such as `HU`; `HU` for CT whose files do not tell, "
        "null where the unit is unknown."
    )


@strawberry.type(
    description="One frame of an instance. A 120-frame cine is one Instance with 120 Frames that "
    "share `orthancInstanceId`."
)
class Frame(Node):
    """One frame; nothing about it is stored."""

    index: int = strawberry.field(description="0-based within the instance.")
    frame_number: int = strawberry.field(description="1-based, as DICOM counts (PS3.3 C.7.6.6).")
    orthanc_instance_id: str = strawberry.field(
        description="Orthanc's identifier of the instance that holds the frame."
    )
    orthanc_frame_index: int = strawberry.field(
        description="0-based, as Orthanc counts: `/instances/{id}/frames/{n}`."
    )
    revision: strawberry.Private[str]

    @classmethod
    def of(cls, orthanc_instance_id: str, revision: str, index: int) -> "Frame":
        """Make a frame; `index` is 0-based."""
        return cls(  # type: ignore[call-arg]  # `id` is a method here
            index=index,
            frame_number=index + 1,
            orthanc_instance_id=orthanc_instance_id,
            orthanc_frame_index=index,
            revision=revision,
        )

    @strawberry.field(  # type: ignore[misc]  # made when it is asked for, not with each frame
        description="Global identifier: opaque, for `node`. It stays when the file is replaced."
    )
    def id(self) -> strawberry.ID:
        """Name the frame."""
        local_id = frame_local_id(self.orthanc_instance_id, self.index)
        return encode_node_id("Frame", local_id)

    @strawberry.field(
        description="A signed URL of the frame as a picture, valid until `urlExpiresAt`. It works "
        "in an `<img>` tag with no header and no cookie. Without arguments the window of the file "
        "is applied (PS3.3 C.11.2), or the full range where the file has none. The URL is "
        "absolute: under PUBLIC_URL where the server has one, else under the address the query "
        "came to."
    )
    def url(  # noqa: PLR0917  # resolvers are called by name
        self,
        info: Info,
        window_center: Annotated[
            float | None,
            strawberry.argument(
                description="Centre of the window, in output units of the modality LUT (Hounsfield "
                "units for CT). Given together with `windowWidth`."
            ),
        ] = None,
        window_width: Annotated[
            float | None,
            strawberry.argument(description="Width of the window, in the same units; above 0."),
        ] = None,
        full_range: Annotated[  # noqa: FBT002  # resolvers are called by name
            bool,
            strawberry.argument(
                description="Show the frame's values from minimum to maximum, without any window."
            ),
        ] = False,  # an argument of the API, always given by name
        max_size: Annotated[
            int | None,
            strawberry.argument(
                description="Longest side in pixels, for thumbnails. A smaller frame keeps its "
                "size."
            ),
        ] = None,
        format: Annotated[  # noqa: A002  # the name in the API
            PictureFormat, strawberry.argument(description="How the picture is encoded.")
        ] = PictureFormat.PNG,
    ) -> str:
        """Mint the URL; no I/O."""
        if (
            window_center is window_width is max_size is None
            and not full_range
            and format is PictureFormat.PNG
        ):
            variant = _DEFAULT_VARIANT
        else:
            variant = FrameVariant(window_center, window_width, full_range, max_size, format)
        return info.context.base_url + self._path(info, variant)

    @strawberry.field(
        description="`url` without arguments, scheme and host, for pages that use their own proxy "
        "to this server."
    )
    def path(self, info: Info) -> str:
        """Mint the path; no I/O."""
        return self._path(info, _DEFAULT_VARIANT)

    @strawberry.field(
        description="ImagePositionPatient (0020,0032) of this frame: x, y and z of the center of "
        "its first pixel, in mm."
    )
    async def position(self, info: Info) -> list[float] | None:
        """Return where the frame is."""
        position = (await self._attributes(info)).geometry.position
        return None if position is None else list(position)

    @strawberry.field(
        description="ImageOrientationPatient (0020,0037) of this frame: direction cosines of its "
        "rows, then of its columns."
    )
    async def orientation(self, info: Info) -> list[float] | None:
        """Return how the frame lies."""
        orientation = (await self._attributes(info)).geometry.orientation
        return None if orientation is None else list(orientation)

    @strawberry.field(
        description="The windows of this frame, the one that is shown first; functional groups "
        "count. In one query, of frames of at most 500 multi-frame instances."
    )
    async def windows(self, info: Info) -> list[Window]:
        """Return the windows of the frame."""
        return [
            Window(
                center=window.center,
                width=window.width,
                explanation=window.explanation,
                function=window.function.value,
            )
            for window in (await self._attributes(info)).windows
        ]

    @strawberry.field(
        description="Statistics of the values in a region. Null for colors, which have no values, "
        "and where the region lies beside the frame. At most 20 in one query."
    )
    async def statistics(
        self,
        info: Info,
        ellipse: Annotated[EllipseInput, strawberry.argument(description="The region.")],
    ) -> RegionStatistics | None:
        """Measure a region."""
        context = info.context
        region = Ellipse(ellipse.column, ellipse.row, ellipse.radius_columns, ellipse.radius_rows)
        context.spend_measurement()
        found = await context.runtime.frames.statistics(
            self.orthanc_instance_id, self.revision, self.index, region
        )
        if found is None:
            return None
        stored = await context.loaders.instance_by_id.load(self.orthanc_instance_id)
        return RegionStatistics(
            mean=found.mean,
            standard_deviation=found.standard_deviation,
            minimum=found.minimum,
            maximum=found.maximum,
            number_of_pixels=found.number_of_pixels,
            unit=_unit_of(stored),
        )

    async def _attributes(self, info: Info) -> FrameAttributes:
        context = info.context
        stored = await context.loaders.instance_by_id.load(self.orthanc_instance_id)
        if stored is None or stored["revision"] != self.revision:
            return FrameAttributes()
        if stored["numberOfFrames"] == 1:
            return indexed_attributes(stored)
        context.spend_header_of(self.orthanc_instance_id)
        return await context.runtime.frames.attributes(
            self.orthanc_instance_id, self.revision, self.index
        )

    @strawberry.field(description="When URLs that are asked for now stop working.")
    def url_expires_at(self, info: Info) -> datetime:
        """Return the moment at which `url` ends."""
        context = info.context
        signer = context.runtime.frames.signer
        return signer.frames_expire_at(now=context.now(), grant=context.grant)

    def _path(self, info: Info, variant: FrameVariant) -> str:
        context = info.context
        context.accesses.minted["Frame.url"] += 1
        return context.runtime.frames.signer.frame_path(
            self.orthanc_instance_id,
            self.revision,
            self.index,
            variant,
            now=context.now(),
            grant=context.grant,
        ).path


_CT_IMAGES = frozenset({"1.2.840.10008.5.1.4.1.1.2"})
"""CT Image Storage: its values are Hounsfield units unless RescaleType says otherwise (PS3.3
C.8.2.1.1.2)."""


def _unit_of(stored: Mapping[str, Any] | None) -> str | None:
    if stored is None or stored.get("sopClassUID") in SHOWN_AS_STORED:
        return None
    unit: str | None = stored.get("rescaleType")
    return unit or ("HU" if stored.get("sopClassUID") in _CT_IMAGES else None)


def frame_window(count: int, part: Slice) -> range:
    """Return the frame indices of a part of `count` frames.

    Args:
        count: How many there are.
        part: What is asked for.
    """
    stop = count if part.first is None else min(count, part.offset + part.first)
    return range(min(part.offset, count), stop)


def frame_of_thumbnail(stored: Mapping[str, Any] | None) -> Frame | None:
    """Return the frame that a stored `models.Thumbnail` points to."""
    if stored is None:
        return None
    return Frame.of(stored["orthancInstanceId"], stored["revision"], stored["frameIndex"])
