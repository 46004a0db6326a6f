"""Instances: SOP instances with their frames and their header."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import orjson
import strawberry
from strawberry.scalars import JSON

from graph.context import Info, Level
from graph.relay import Node
from graph.types.document import EncapsulatedDocument, Report, ReportLine
from graph.types.frame import Frame, Window, frame_window
from graph.types.stored import FromStored, slice_of
from models import InstanceDocument, StoredDocument
from services.auth.roles import Role
from services.dicom.documents import document_kind
from services.dicom.frame_count import sop_class_name
from services.dicom.report import is_report, read_report
from services.errors import LimitExceeded
from services.query.header_json import Header

if TYPE_CHECKING:
    from graph.types.series import Series

_REPORT_MAX_BYTES = 4 * 1024 * 1024
"""JSON of a report that is shown as text: more than 10,000 items, decoded within 0.1 s."""


@strawberry.type(
    description="A SOP instance: one DICOM file. It may hold one frame, many (`numberOfFrames`) or "
    "none."
)
class Instance(FromStored, Node):
    """One stored instance."""

    document_class: ClassVar[type[StoredDocument]] = InstanceDocument
    identified_by: ClassVar[str] = "orthanc_instance_id"
    type_name: ClassVar[Level] = "Instance"

    orthanc_instance_id: str = strawberry.field(
        description="Orthanc's identifier: the path `/instances/{id}` of its REST API."
    )
    orthanc_series_id: str = strawberry.field(description="Orthanc's identifier of the series.")
    orthanc_study_id: str = strawberry.field(description="Orthanc's identifier of the study.")
    use_orthanc_preview: bool = strawberry.field(
        description="False: this instance's pictures are never requested from Orthanc."
    )
    sop_instance_uid: str = strawberry.field(description="SOPInstanceUID (0008,0018).")
    sop_class_uid: str | None = strawberry.field(description="SOPClassUID (0008,0016).")
    transfer_syntax_uid: str | None = strawberry.field(
        description="TransferSyntaxUID (0002,0010): how the stored file is encoded."
    )
    instance_number: int | None = strawberry.field(description="InstanceNumber (0020,0013).")
    rows: int | None = strawberry.field(
        description="Rows (0028,0010): height of a frame in pixels."
    )
    columns: int | None = strawberry.field(
        description="Columns (0028,0011): width of a frame in pixels."
    )
    bits_allocated: int | None = strawberry.field(
        description="BitsAllocated (0028,0100): bits for each stored sample."
    )
    photometric_interpretation: str | None = strawberry.field(
        description="PhotometricInterpretation (0028,0004), such as `MONOCHROME2` or `RGB`."
    )
    window_center: float | None = strawberry.field(
        description="First value of WindowCenter (0028,1050), in output units of the modality LUT."
    )
    window_width: float | None = strawberry.field(
        description="First value of WindowWidth (0028,1051), in the same units."
    )
    rescale_slope: float | None = strawberry.field(
        description="RescaleSlope (0028,1053): output units of the modality LUT per stored value."
    )
    rescale_intercept: float | None = strawberry.field(
        description="RescaleIntercept (0028,1052), in output units of the modality LUT."
    )
    rescale_type: str | None = strawberry.field(
        description="RescaleType (0028,1054): the unit of the modality LUT's output, such as `HU`."
    )
    lossy_image_compression: bool | None = strawberry.field(
        description="LossyImageCompression (0028,2110): whether the image was ever compressed with "
        "loss."
    )
    lossy_image_compression_ratio: float | None = strawberry.field(
        description="LossyImageCompressionRatio (0028,2112); the last one where there are several."
    )
    burned_in_annotation: bool | None = strawberry.field(
        description="BurnedInAnnotation (0028,0301): whether the pixels may show who the patient "
        "is."
    )
    frame_time: float | None = strawberry.field(
        description="FrameTime (0018,1063): milliseconds between two frames."
    )
    recommended_display_frame_rate: float | None = strawberry.field(
        description="RecommendedDisplayFrameRate (0008,2144): frames per second."
    )
    pixel_spacing: list[float] | None = strawberry.field(
        description="PixelSpacing (0028,0030): distance of rows, then of columns, in mm in the "
        "patient."
    )
    imager_pixel_spacing: list[float] | None = strawberry.field(
        description="ImagerPixelSpacing (0018,1164): distance of rows, then of columns, in mm at "
        "the detector."
    )
    pixel_aspect_ratio: list[float] | None = strawberry.field(
        description="PixelAspectRatio (0028,0034): vertical, then horizontal size of a pixel."
    )
    image_position_patient: list[float] | None = strawberry.field(
        description="ImagePositionPatient (0020,0032): x, y and z of the center of the first "
        "pixel, in mm; of the first frame where frames have their own."
    )
    image_orientation_patient: list[float] | None = strawberry.field(
        description="ImageOrientationPatient (0020,0037): direction cosines of the rows, then of "
        "the columns; of the first frame where frames have their own."
    )
    frame_of_reference_uid: str | None = strawberry.field(
        description="FrameOfReferenceUID (0020,0052): positions of instances with the same one can "
        "be compared."
    )
    slice_location: float | None = strawberry.field(description="SliceLocation (0020,1041), in mm.")
    slice_thickness: float | None = strawberry.field(
        description="SliceThickness (0018,0050), in mm."
    )
    spacing_between_slices: float | None = strawberry.field(
        description="SpacingBetweenSlices (0018,0088), in mm."
    )
    laterality: str | None = strawberry.field(
        description="ImageLaterality (0020,0062) or Laterality (0020,0060): `L`, `R`, `B` or `U`."
    )
    view_position: str | None = strawberry.field(
        description="ViewPosition (0018,5101), such as `AP` or `MLO`."
    )
    patient_orientation: list[str] = strawberry.field(
        description="PatientOrientation (0020,0020): directions of the rows, then of the columns, "
        "such as `L` and `P`."
    )
    acquisition_number: int | None = strawberry.field(description="AcquisitionNumber (0020,0012).")
    echo_numbers: list[int] = strawberry.field(description="EchoNumbers (0018,0086).")
    temporal_position_identifier: int | None = strawberry.field(
        description="TemporalPositionIdentifier (0020,0100)."
    )
    image_type: list[str] = strawberry.field(
        description="ImageType (0008,0008), such as `ORIGINAL`, `PRIMARY` and `AXIAL`; the order "
        "matters."
    )
    file_size_bytes: float = strawberry.field(
        description="Size of the stored DICOM file, in bytes."
    )
    number_of_frames: int = strawberry.field(
        description="Frames that can be shown; 0 for what has no pixels (structured reports, RT "
        "structure sets, PDF ...) or can't be shown."
    )
    not_renderable_reason: str | None = strawberry.field(
        description="Why no frame can be shown, as a sentence for users; null when `isRenderable`."
    )
    revision: strawberry.Private[str]
    acquisition_date_time: strawberry.Private[str | None]
    windows: strawberry.Private[list[dict[str, Any]]]

    @strawberry.field(
        description="Address of the instance in Orthanc's REST API; for admins, null for others "
        "and while PACS integration is off."
    )
    def orthanc_url(self, info: Info) -> str | None:
        """Tell admins where the instance is."""
        principal, base = info.context.principal, info.context.runtime.orthanc_url
        if base is None or principal is None or principal.role < Role.ADMIN:
            return None
        return f"{base}/instances/{self.orthanc_instance_id}"

    @strawberry.field(
        description="Name of the SOP class (PS3.6 A), such as `CT Image Storage`; null for private "
        "and unknown ones."
    )
    def sop_class_name(self) -> str | None:
        """Look the SOP class up."""
        return sop_class_name(self.sop_class_uid)

    @strawberry.field(
        name="windows",
        description="All windows of the file with their explanations, in its order; those of the "
        "first frame where frames have their own.",
    )
    def windows_of_file(self) -> list[Window]:
        """Return the windows."""
        return [Window(**window) for window in self.windows]

    @strawberry.field(
        name="acquisitionDateTime",
        description="AcquisitionDateTime (0008,002A), or AcquisitionDate and AcquisitionTime; "
        "without an offset from UTC where the file has none.",
    )
    def acquired_at(self) -> datetime | None:
        """Return when the image was acquired."""
        moment = self.acquisition_date_time
        return None if moment is None else datetime.fromisoformat(moment)

    @strawberry.field(description="Whether there is at least one frame to show.")
    def is_renderable(self) -> bool:
        """Tell whether there are frames."""
        return self.number_of_frames > 0

    @strawberry.field(description="The series that the instance belongs to.")
    async def series(
        self, info: Info
    ) -> Annotated["Series", strawberry.lazy("graph.types.series")]:
        """Load the series."""
        from graph.types.series import Series  # noqa: PLC0415  # the levels refer to each other

        return Series.from_found(
            await info.context.loaders.series_by_id.load(self.orthanc_series_id)
        )

    @strawberry.field(description="One frame; null when there is no such frame to show.")
    def frame(
        self,
        index: Annotated[int, strawberry.argument(description="0-based within the instance.")] = 0,
    ) -> Frame | None:
        """Return one frame."""
        return self.frame_at(index)

    @strawberry.field(description="The frames in their order, all or a window of them.")
    def frames(
        self,
        info: Info,
        first: Annotated[
            int | None, strawberry.argument(description="How many at most; all when absent.")
        ] = None,
        offset: Annotated[
            int, strawberry.argument(description="0-based index of the first one.")
        ] = 0,
    ) -> list[Frame]:
        """Return frames, and build no more than are asked for."""
        window = frame_window(self.number_of_frames, slice_of(first, offset))
        info.context.count_nodes(len(window))
        return [self._frame(index) for index in window]

    @strawberry.field(
        description="A signed URL of all frames and renderings of the instance, with two places to "
        "fill in: `{frame}`, the 0-based index, and `{variant}`: `default` (the window of the "
        "file), `full` (minimum to maximum) or `w<center>x<width>` such as `w-600.5x1500`, "
        "followed by `-s<maxSize>` where a longest side is wanted. Numbers have at most 6 "
        "significant digits, no exponent, no `+` and no superfluous zeros, as JavaScript's "
        "`String(Number(x.toPrecision(6)))` writes them. For JPEG replace `.png` by `.jpg`. Valid "
        "until `Frame.urlExpiresAt`: changing the window needs no further query."
    )
    def frame_url_template(self, info: Info) -> str:
        """Mint the URL; no I/O."""
        context = info.context
        context.accesses.minted["Instance.frameUrlTemplate"] += 1
        signed = context.runtime.frames.signer.frame_template(
            self.orthanc_instance_id, self.revision, now=context.now(), grant=context.grant
        )
        return context.base_url + signed.path

    @strawberry.field(
        description="A signed URL of the DICOM file, for `wadouri:`, VolView, dwv and links. It "
        "works with no header and no cookie, answers ranges, and is valid as long as the URLs of "
        "frames. A share that does not allow downloads has none: `FORBIDDEN`."
    )
    def file_url(self, info: Info) -> str:
        """Mint the URL; no I/O."""
        context = info.context
        context.require_download()
        context.accesses.minted["Instance.fileUrl"] += 1
        signed = context.runtime.downloads.urls.file_path(
            self.orthanc_instance_id, self.revision, now=context.now(), grant=context.grant
        )
        return context.base_url + signed.path

    @strawberry.field(
        description="The document that the file holds: a PDF, a CDA report, a 3D model or a video; "
        "null for all others."
    )
    def document(self, info: Info) -> EncapsulatedDocument | None:
        """Mint the URL of the document; no I/O."""
        kind = document_kind(self.sop_class_uid, self.transfer_syntax_uid)
        if kind is None:
            return None
        context = info.context
        context.accesses.minted["Instance.document"] += 1
        signed = context.runtime.downloads.urls.document_path(
            self.orthanc_instance_id, self.revision, now=context.now(), grant=context.grant
        )
        return EncapsulatedDocument(
            media_type=kind.media_type,
            url=context.base_url + signed.path,
            url_expires_at=signed.expires_at,
        )

    @strawberry.field(
        description="The structured report that the file holds, as text; null for all other SOP "
        "classes. It is read from the header: a query has at most 500 of them and of `tags`."
    )
    async def report(self, info: Info) -> Report | None:
        """Read the report from the header."""
        if not is_report(self.sop_class_uid):
            return None
        header = await self._header(info)
        info.context.spend_header_bytes(header.json_bytes)
        if header.json_bytes > _REPORT_MAX_BYTES:
            raise LimitExceeded("This report is too long to be shown as text. Use `fileUrl`.")
        report = read_report(header.elements)
        info.context.count_nodes(len(report.lines))
        return Report(
            title=report.title,
            completion_flag=report.completion,
            verification_flag=report.verification,
            verified_by=list(report.verified_by),
            lines=[ReportLine(depth=x.depth, name=x.name, value=x.value) for x in report.lines],
            is_cut=report.is_cut,
            text="\n".join(line.text for line in report.lines),
        )

    @strawberry.field(
        description="The header in the DICOM JSON model (PS3.18 F), read from the stored file when "
        "it is asked for, of at most 500 instances in one query. Binary values over 64 KiB have a "
        "BulkDataURI of `/dicomweb`, pixels are left out."
    )
    async def tags(
        self,
        info: Info,
        only: Annotated[
            list[str] | None,
            strawberry.argument(
                description="Keywords of PS3.6, such as `KVP`; the whole header when absent. "
                "Elements that the file has not are left out."
            ),
        ] = None,
    ) -> JSON | None:
        """Read the header from Orthanc."""
        header = await self._header(info)
        if only is not None:
            header = await header.selected(only)
        try:
            info.context.spend_header_bytes(header.json_bytes)
        except LimitExceeded:
            # The error keeps this frame, and with it the header, until garbage is collected.
            del header
            raise
        # It is in the answer as it is, without being decoded.
        return JSON(orjson.Fragment(header.content))

    def frame_at(self, index: int) -> Frame | None:
        """Return a frame by its 0-based index; None when there is no such frame to show."""
        return self._frame(index) if 0 <= index < self.number_of_frames else None

    async def _header(self, info: Info) -> Header:
        info.context.spend_header()
        return await info.context.runtime.headers.dicom_json(
            self.orthanc_instance_id, self.revision, series_id=self.orthanc_series_id
        )

    def _frame(self, index: int) -> Frame:
        return Frame.of(self.orthanc_instance_id, self.revision, index)
