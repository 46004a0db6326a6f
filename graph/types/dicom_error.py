"""Why a peer, or a step of a job, failed."""

from typing import Self

import strawberry

from models import DicomErrorRecord


@strawberry.type(description="Why something was not done.")
class DicomError:
    """An error of a peer or of a job."""

    code: str = strawberry.field(
        description="Stable, for programs, such as `MODALITY_REJECTED` or `ORTHANC_UNAVAILABLE`."
    )
    message: str = strawberry.field(description="A sentence for users that says what to check.")
    dimse_status: str | None = strawberry.field(
        description="Status of the peer (PS3.7 C), as `A801`; null when there was none."
    )

    @classmethod
    def of(cls, record: DicomErrorRecord) -> Self:
        """Show an error."""
        return cls(code=record.code, message=record.message, dimse_status=record.dimse_status)
