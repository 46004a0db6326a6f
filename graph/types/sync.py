"""What deleting and synchronizing did."""

from typing import Self

import strawberry

from services.sync import comparison


@strawberry.type(description="The result of a deletion; repeating a deletion returns 0.")
class DeletePayload:
    """The outcome of a deletion."""

    deleted_instances: int = strawberry.field(description="Number of deleted instances.")
    deleted_ids: list[strawberry.ID] = strawberry.field(
        description="The `id` of all deleted instances, series, studies and patients, so that "
        "caches can remove them."
    )


@strawberry.type(description="What a comparison with Orthanc found and did.")
class SyncReport:
    """The outcome of a comparison."""

    indexed: int = strawberry.field(
        description="Instances that Orthanc holds and that were missing or replaced."
    )
    removed: int = strawberry.field(description="Instances that Orthanc has no more.")
    up_to_date: bool = strawberry.field(description="Nothing had to be done.")

    @classmethod
    def of(cls, report: comparison.SyncReport) -> Self:
        """Show a report."""
        return cls(indexed=report.indexed, removed=report.removed, up_to_date=report.up_to_date)
