"""What became of the files that were sent."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import strawberry

from graph.context import Info
from services.ingest.results import StoreResult, StoreStatus

if TYPE_CHECKING:
    from graph.types.instance import Instance
    from graph.types.study import Study

strawberry.enum(
    StoreStatus,
    name="UploadStatus",
    description="STORED: it is new. ALREADY_STORED: the same content was there. CONFLICT: other "
    "content is stored under the same UIDs and stays. REJECTED: the file itself is at fault. "
    "FAILED: a server is at fault; send the file again.",
)

_FAILURES = frozenset({StoreStatus.CONFLICT, StoreStatus.REJECTED, StoreStatus.FAILED})


@strawberry.type(description="Why a file was not stored.")
class UploadError:
    """A reason, for programs and for people."""

    code: str = strawberry.field(description="Stable, for programs, such as `NOT_DICOM`.")
    message: str = strawberry.field(description="A sentence for a person.")


@strawberry.type(description="The outcome of one DICOM file.")
class UploadResult:
    """One file's outcome."""

    file_name: str = strawberry.field(
        description="As it was sent; members of archives as `archive.zip/member`."
    )
    status: StoreStatus = strawberry.field(description="What became of the file.")
    frame_count: int = strawberry.field(description="Frames that can be shown; 0 when not stored.")
    error: UploadError | None = strawberry.field(description="Null for STORED and ALREADY_STORED.")
    instance_id: strawberry.Private[str | None]

    @classmethod
    def of(cls, result: StoreResult) -> "UploadResult":
        """Make it of the service's result."""
        error = result.error
        return cls(
            file_name=result.file_name,
            status=result.status,
            frame_count=result.frame_count,
            error=None if error is None else UploadError(code=error.code, message=error.message),
            instance_id=result.instance_id,
        )

    @strawberry.field(
        description="The instance that is stored now; for CONFLICT the one that was there first."
    )
    async def instance(
        self, info: Info
    ) -> Annotated["Instance", strawberry.lazy("graph.types.instance")] | None:
        """Load the instance."""
        from graph.types.instance import Instance  # noqa: PLC0415  # loaded with the schema

        if self.instance_id is None:
            return None
        stored = await info.context.loaders.instance_by_id.load(self.instance_id)
        if stored is None:
            return None
        info.context.show([stored], "Instance")
        return Instance.from_stored(stored)


@strawberry.type(description="The outcome of an upload.")
class UploadDicomPayload:
    """All results of one upload."""

    results: list[UploadResult] = strawberry.field(
        description="One per DICOM file, in the order sent; archives stand for their members."
    )
    stored_count: int = strawberry.field(description="How many are new.")
    already_stored_count: int = strawberry.field(description="How many were there before.")
    failed_count: int = strawberry.field(description="CONFLICT, REJECTED and FAILED together.")
    study_ids: strawberry.Private[tuple[str, ...]]

    @classmethod
    def of(cls, results: Sequence[StoreResult]) -> "UploadDicomPayload":
        """Make it of the service's results."""
        statuses = [result.status for result in results]
        touched = dict.fromkeys(
            result.study_id for result in results if result.study_id and result.error is None
        )
        return cls(
            results=[UploadResult.of(result) for result in results],
            stored_count=statuses.count(StoreStatus.STORED),
            already_stored_count=statuses.count(StoreStatus.ALREADY_STORED),
            failed_count=sum(status in _FAILURES for status in statuses),
            study_ids=tuple(study_id for study_id in touched if study_id),
        )

    @strawberry.field(description="The studies that the stored files belong to, each once.")
    async def studies(
        self, info: Info
    ) -> list[Annotated["Study", strawberry.lazy("graph.types.study")]]:
        """Load the studies."""
        from graph.types.study import Study  # noqa: PLC0415  # loaded with the schema

        found = await info.context.loaders.study_by_id.load_many(self.study_ids)
        studies = [stored for stored in found if stored is not None]
        info.context.show(studies, "Study")
        return [Study.from_stored(stored) for stored in studies]
