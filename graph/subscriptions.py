"""The subscriptions."""

from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Annotated

import strawberry

from graph.context import Info
from graph.execution.audit import describe_search, record_accesses
from graph.execution.authorization import require
from graph.relay import encode_node_id, require_node_id
from graph.types.job import Job, JobKind
from graph.types.study import Study
from graph.types.upload import UploadProgress
from services.auth.roles import Role, authorize
from services.errors import NotFound
from services.ingest.progress import parse_upload_id
from services.jobs.service import NO_JOB
from services.jobs.store import is_visible_to
from services.sync.events import StudyChange, StudyChangeKind

strawberry.enum(
    StudyChangeKind,
    name="StudyEventKind",
    description="CREATED: its first images arrived. UPDATED: it changed. STABLE: it did not "
    "change for a while. DELETED: it was deleted.",
)


@strawberry.type(description="An event of a study.")
class StudyEvent:
    """An event."""

    id: strawberry.ID = strawberry.field(
        description="The `id` of the study, so that caches find what to update or to remove."
    )
    kind: StudyChangeKind = strawberry.field(description="What happened.")
    study_instance_uid: str = strawberry.field(
        name="studyInstanceUID", description="Study Instance UID (0020,000D)."
    )
    study: Study | None = strawberry.field(description="The study; null when it is deleted.")
    at: datetime = strawberry.field(
        description="When it was sent, for `since` after the connection was lost."
    )

    @classmethod
    def of(cls, change: StudyChange) -> "StudyEvent":
        """Show a change."""
        return cls(
            at=datetime.now(UTC),
            id=encode_node_id("Study", change.study_id),
            kind=change.kind,
            study_instance_uid=change.study_instance_uid,
            study=Study.from_stored(change.document) if change.document is not None else None,
        )


async def _chained(
    first: Iterable[StudyChange], then: AsyncIterable[StudyChange]
) -> AsyncGenerator[StudyChange, None]:
    for change in first:
        yield change
    async for change in then:
        yield change


@strawberry.type(description="Events as they happen.")
class Subscription:
    """The root of all subscriptions."""

    @strawberry.subscription(
        description="Events of studies from now on, at most one for each study and second. A "
        "client that reads too slowly gets an error, and the subscription ends."
    )
    async def study_events(
        self,
        info: Info,
        study_instance_uid: Annotated[
            str | None,
            strawberry.argument(
                name="studyInstanceUID", description="Only this study; all when absent."
            ),
        ] = None,
        since: Annotated[
            datetime | None,
            strawberry.argument(
                description="First send what happened since then, deletions included: `at` of the "
                "last event, at most 7 days ago. Some of it may be known already. Without a zone "
                "it is taken as UTC."
            ),
        ] = None,
    ) -> AsyncGenerator[StudyEvent, None]:
        """Send the events of studies."""
        require(info, Role.VIEWER)
        context = info.context
        arguments = {"study_instance_uid": study_instance_uid}
        context.accesses.searches.append(describe_search("studyEvents", arguments))
        await record_accesses(context.runtime.audit, context.accesses, context.principal)
        events = info.context.runtime.study_events
        async with (
            events.listen(study_instance_uid, scope=context.scope) as listener,
            aclosing(listener.events()) as changes,
        ):
            missed = []
            if since is not None:
                moment = since if since.tzinfo else since.replace(tzinfo=UTC)
                missed = await events.missed(moment, study_instance_uid, scope=context.scope)
            async for change in _chained(missed, changes):
                await info.context.start_event()
                # The token may have been revoked, or have expired, since the last event.
                require(info, Role.VIEWER)
                if not context.scope.covers(change.study_id, change.labels):
                    continue
                if change.document is not None:
                    info.context.show([change.document], "Study")
                yield StudyEvent.of(change)

    @strawberry.subscription(
        description="Jobs of the caller as they change, to administrators those of everybody; at "
        "most one event per job and second, and always the last one. With `id` the job is sent "
        "first as it is now."
    )
    async def job_events(
        self,
        info: Info,
        job_id: Annotated[
            strawberry.ID | None,
            strawberry.argument(name="id", description="Only this job; all when absent."),
        ] = None,
        kinds: Annotated[
            list[JobKind] | None,
            strawberry.argument(description="Only these kinds; all when absent."),
        ] = None,
    ) -> AsyncGenerator[Job, None]:
        """Send jobs as they change."""
        require(info, Role.VIEWER)
        context = info.context
        only = None if job_id is None else require_node_id("Job", job_id)
        async with (
            context.runtime.job_events.listen(only, kinds=kinds) as listener,
            aclosing(listener.events()) as changes,
        ):
            if only is not None:
                principal = authorize(context.principal, Role.VIEWER)
                job = await context.runtime.jobs.find(only, principal)
                if job is None:
                    raise NotFound(NO_JOB)
                context.count_nodes(1)
                yield Job.of(job)
            async for changed in changes:
                await context.start_event()
                # The token may have been revoked, or have expired, since the last event.
                require(info, Role.VIEWER)
                if is_visible_to(authorize(context.principal, Role.VIEWER), changed):
                    context.count_nodes(1)
                    yield Job.of(changed)

    @strawberry.subscription(
        description="How far an upload is: first as it is now, then whenever it has changed, at "
        "most twice a second. Only its sender sees anything but zeros. It does not end by itself: "
        "the answers of the upload say when all is done."
    )
    async def upload_progress(
        self,
        info: Info,
        upload_id: Annotated[
            strawberry.ID,
            strawberry.argument(
                name="uploadId",
                description="What the requests of the upload have in the header `Upload-Id`: 8 to "
                "64 letters, digits, `-` or `_`, a new one for each upload.",
            ),
        ],
    ) -> AsyncGenerator[UploadProgress, None]:
        """Send the counts of an upload as they change."""
        require(info, Role.UPLOADER)
        context = info.context
        sender = authorize(context.principal, Role.UPLOADER)
        progress = context.runtime.upload_progress
        async with aclosing(progress.follow(parse_upload_id(upload_id), sender)) as changes:
            async for counts in changes:
                await context.start_event()
                # The token may have been revoked, or have expired, since the last event.
                require(info, Role.UPLOADER)
                yield UploadProgress.of(counts)
