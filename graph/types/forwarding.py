"""Forwarding rules: what arrives and matches is sent to a modality."""

from datetime import datetime
from typing import Self

import strawberry

from graph.context import Info
from graph.types.job import Job
from graph.types.modality import Modality
from models import ForwardingRuleDocument
from models.forwarding import StudyOrigin

strawberry.enum(
    StudyOrigin,
    description="How a study came into the archive. RECEIVED: from outside, also when it was "
    "corrected since. ANONYMIZED and MODIFIED: a copy that this server has made.",
)


@strawberry.type(
    description="Sends studies that match to a modality when they are stable. Criteria that are "
    "given must all match; null ones don't count."
)
class ForwardingRule:
    """One rule."""

    name: str = strawberry.field(description="Its name: letters, digits, `-` and `_`.")
    modalities: list[str] | None = strawberry.field(
        description="The study has a series of one of these modalities, as `CT`."
    )
    calling_ae_titles: list[str] | None = strawberry.field(
        description="Some of the study was stored in Orthanc from one of these AE titles."
    )
    labels: list[str] | None = strawberry.field(description="The study has one of these labels.")
    study_description: str | None = strawberry.field(
        description="StudyDescription without regard to case; `*` stands for any characters, `?` "
        "for one."
    )
    origins: list[StudyOrigin] = strawberry.field(
        description="The study came into the archive in one of these ways."
    )
    commit: bool = strawberry.field(
        description="Whether the modality is asked to confirm that it keeps the studies."
    )
    created_at: datetime = strawberry.field(
        description="When it was declared: studies that were there before are not sent."
    )
    updated_at: datetime = strawberry.field(description="When it last changed.")
    destination: strawberry.Private[str]

    @classmethod
    def of(cls, rule: ForwardingRuleDocument) -> Self:
        """Show a rule."""
        return cls(
            name=rule.id,
            modalities=rule.modalities,
            calling_ae_titles=rule.calling_ae_titles,
            labels=rule.labels,
            study_description=rule.study_description,
            origins=rule.origins,
            commit=rule.commit,
            created_at=rule.created_at,
            updated_at=rule.updated_at,
            destination=rule.destination,
        )

    @strawberry.field(
        description="Where studies are sent; null when the modality was removed: its jobs fail."
    )
    async def modality(self, info: Info) -> Modality | None:
        """Find the modality."""
        found = await info.context.runtime.modalities.find(self.destination)
        return None if found is None else Modality.of(found)

    @strawberry.field(
        description="Its queue: unfinished SEND jobs, the oldest first; at most 200. Jobs that "
        "wait for a modality that is down have an `error` and a `nextAttemptAt`."
    )
    async def jobs(self, info: Info) -> list[Job]:
        """Read the queue."""
        found = await info.context.runtime.forwarding.queue(self.name)
        info.context.count_nodes(len(found))
        return [Job.of(job) for job in found]
