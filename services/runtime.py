"""The services, opened together and closed together: the composition root below HTTP."""

import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from services.anonymization.modifications import Modifications, ModifyHandler
from services.anonymization.replacement import Replacements
from services.anonymization.service import Anonymizations, AnonymizeHandler
from services.audit import Audit, open_audit
from services.auth.authenticator import Authenticator, open_authenticator
from services.auth.open_mode import reason_to_stay_closed, remember_credentials
from services.backup.service import BackupFolder, BackupHandler, VerifyBackupHandler
from services.connections import (
    Connections,
    WorkerGroup,
    make_events_secret,
    open_connections,
    share_of,
)
from services.database import open_database
from services.deletion import Deletion
from services.dicomweb.prepared_headers import HeaderPreparation
from services.dicomweb.resources import Resources
from services.downloads.service import Downloads
from services.downloads.urls import FileUrlSigner
from services.exports.contents import ExportContents
from services.exports.decoded import DecodedFiles
from services.exports.folder import ExportFolder
from services.exports.service import ExportHandler, Exports
from services.exports.urls import ExportUrlSigner
from services.frames.renderer import RendererLimits
from services.frames.service import FrameLimits, FrameService, open_frames
from services.frames.signing import FrameUrlKeys, FrameUrlSigner, load_or_create_keys
from services.health.checks import Health, check_health
from services.health.descriptors import DescriptorWatch
from services.health.readiness import Readiness
from services.index.indexer import Indexer, mark_not_renderable, open_indexer
from services.index.stored_state import load_patient_names
from services.ingest.archives import ArchiveLimits
from services.ingest.progress import UploadProgressRecords
from services.ingest.service import Ingest
from services.ingest.storing import FileStorage
from services.jobs.events import JobEvents
from services.jobs.handler import JobHandler
from services.jobs.runner import JobRunner, RunnerLimits
from services.jobs.service import Jobs
from services.jobs.store import JobStore
from services.labels.rules import LabelRules
from services.labels.service import Labels
from services.modalities.forwarding import Forwarding
from services.modalities.retrieve import RetrieveJobs
from services.modalities.send import SendJobs
from services.modalities.service import Modalities, open_modalities
from services.observability.tracing import is_configured
from services.orthanc.capacity import WHOLE_CAPACITY, OrthancCapacity
from services.orthanc.client import Orthanc, OrthancClient, open_orthanc
from services.query.header_json import HeaderService
from services.query.lists import Lists
from services.query.series_headers import SeriesHeaders
from services.query.tree import Trees
from services.settings import Settings
from services.sharing.service import Sharing, open_sharing
from services.study_files import StudyFiles
from services.sync.events import StudyEvents
from services.sync.reconciler import following_removals
from services.sync.service import SyncService
from services.tasks import Supervisor, finish_in_thread
from services.webhooks.service import open_webhooks
from services.webhooks.signature import WebhookKeys
from services.worklist.arrivals import WorklistArrivals
from services.worklist.folder import WorklistFolder
from services.worklist.service import Worklist


async def enter_orthanc(
    stack: AsyncExitStack,
    settings: Settings,
    connections: Connections,
    capacity: OrthancCapacity,
) -> Orthanc | None:
    """Open what asks Orthanc; None while PACS integration is off."""
    if connections.orthanc_url is None:
        return None
    return await stack.enter_async_context(
        open_orthanc(
            connections.orthanc_url,
            connections.orthanc_username,
            connections.orthanc_password,
            frame_seconds=settings.frame_decode_seconds,
            capacity=capacity,
            read_urls=settings.orthanc_read_urls,
        )
    )


async def read_url_keys(settings: Settings) -> FrameUrlKeys:
    """Read the keys of signed URLs, from the settings or the data directory."""
    given = settings.frame_url_keys
    if given is not None:
        return FrameUrlKeys.parse(given.get_secret_value())
    return await finish_in_thread(load_or_create_keys, settings.data_dir)


async def enter_frames(
    stack: AsyncExitStack,
    settings: Settings,
    keys: FrameUrlKeys,
    orthanc: Orthanc | None,
    *,
    database: AsyncDatabase[dict[str, Any]],
    capacity: OrthancCapacity,
    supervisor: Supervisor,
) -> FrameService:
    """Open what signs and renders frames."""
    limits = FrameLimits(
        cache_bytes=settings.frame_cache_bytes,
        slots=capacity.frames,
        queue_size=settings.frame_queue_size,
        max_pixels=settings.frame_max_pixels,
        decode_seconds=settings.frame_decode_seconds,
        renderers=RendererLimits(
            processes=settings.renderer_processes or os.cpu_count() or 1,
            memory_bytes=settings.renderer_memory_bytes,
            seconds=settings.frame_decode_seconds,
        ),
    )
    signer = FrameUrlSigner(keys, valid_seconds=settings.frame_url_seconds)
    client, frames = (orthanc.client, orthanc.frames) if orthanc else (None, None)
    return await stack.enter_async_context(
        open_frames(
            signer,
            client,
            frames,
            limits,
            mark_not_renderable=partial(mark_not_renderable, database),
            supervisor=supervisor,
        )
    )


def make_ingest(
    settings: Settings,
    orthanc: Orthanc | None,
    database: AsyncDatabase[dict[str, Any]],
    indexer: Indexer,
    capacity: OrthancCapacity,
) -> Ingest:
    """Make what stores files."""
    limits = ArchiveLimits(
        max_members=settings.zip_max_members,
        max_bytes=settings.zip_max_bytes,
        max_ratio=settings.zip_max_ratio,
    )
    storage = None
    if orthanc is not None:
        storage = FileStorage(
            orthanc.client,
            orthanc.files,
            indexer.index,
            settings.walk_limits,
            keep_tiff_preamble=settings.keep_tiff_preamble,
            pending=indexer.pending,
            find_names=partial(load_patient_names, database),
        )
    return Ingest(
        storage,
        limits=limits,
        concurrency=settings.upload_concurrency,
        caller_concurrency=max(1, capacity.stores // 2),
    )


def make_job_handlers(
    settings: Settings,
    orthanc: Orthanc | None,
    database: AsyncDatabase[dict[str, Any]],
    *,
    replacements: Replacements | None,
    modalities: Modalities,
    ingest: Ingest,
    files: StudyFiles | None,
    deletion: Deletion | None,
    labels: Labels,
    decoded: DecodedFiles | None,
) -> list[JobHandler]:
    """Make what runs the jobs, one handler for each kind."""
    backup_folder = BackupFolder(settings.backup_folder)
    handlers: list[JobHandler] = [
        RetrieveJobs(modalities, ingest, database, file_bytes_max=settings.upload_max_bytes),
        SendJobs(modalities, orthanc, database),
        BackupHandler(
            database, settings.data_dir, backup_folder, has_orthanc=settings.embeds_orthanc
        ),
        VerifyBackupHandler(backup_folder),
    ]
    if orthanc and files and replacements and deletion and decoded:
        handlers += [
            AnonymizeHandler(files, database, deletion, labels),
            ModifyHandler(files, replacements, database, deletion, labels),
            ExportHandler(
                files,
                ExportContents(database),
                decoded,
                orthanc.client,
                folder=ExportFolder(settings.export_folder) if settings.export_folder else None,
                retention=settings.job_retention,
            ),
        ]
    return handlers


async def enter_worklist(stack: AsyncExitStack, runtime: "Runtime") -> None:
    """Serve the worklist, and complete its entries, for as long as the server runs."""
    folder, supervisor = runtime.worklist_folder, runtime.supervisor
    if folder is not None:
        await stack.enter_async_context(supervisor.running("worklist folder", folder.run))
    arrivals = WorklistArrivals(
        runtime.database,
        stable_seconds=runtime.settings.study_stable_seconds,
        on_changed=folder.refresh if folder else None,
    )
    await stack.enter_async_context(supervisor.running("worklist arrivals", arrivals.run))


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """Everything that a request or a command may use.

    Attributes:
        orthanc: None while PACS integration is off, and with it `replacements`, `deletion` and
            `sync`.
        orthanc_url: Where Orthanc is, for admins.
        orthanc_events_secret: Proves that a notice of a deletion comes from our Orthanc.
        supervisor: Of the background tasks.
        descriptors: Watches the file descriptors of a server.
        worklist_folder: None where this process writes no files for scanners.
        readiness: Whether a server should get requests.
    """

    settings: Settings
    supervisor: Supervisor
    descriptors: DescriptorWatch
    readiness: Readiness
    authenticator: Authenticator
    audit: Audit
    database: AsyncDatabase[dict[str, Any]]
    orthanc: OrthancClient | None
    whole_orthanc: Orthanc | None
    orthanc_url: str | None
    orthanc_events_secret: str
    lists: Lists
    trees: Trees
    sharing: Sharing
    labels: Labels
    jobs: Jobs
    job_events: JobEvents
    job_runner: JobRunner
    backup_folder: BackupFolder
    anonymizations: Anonymizations
    modifications: Modifications
    replacements: Replacements | None
    exports: Exports
    forwarding: Forwarding
    worklist: Worklist
    worklist_folder: WorklistFolder | None
    modalities: Modalities
    headers: HeaderService
    series_headers: SeriesHeaders
    resources: Resources
    indexer: Indexer
    ingest: Ingest
    upload_progress: UploadProgressRecords
    frames: FrameService
    downloads: Downloads
    deletion: Deletion | None
    sync: SyncService | None
    study_events: StudyEvents

    async def check_health(self) -> Health:
        """Ask MongoDB and Orthanc how they are; never raises, and waits 3 s for each at most."""
        return await check_health(self.database, self.orthanc, self.descriptors, self.supervisor)


async def enter_webhooks(
    stack: AsyncExitStack,
    settings: Settings,
    database: AsyncDatabase[dict[str, Any]],
    supervisor: Supervisor,
) -> None:
    """Deliver webhooks where there are receivers."""
    if not settings.webhook_urls or settings.webhook_secret is None:
        return
    webhooks = await stack.enter_async_context(
        open_webhooks(
            database,
            settings.webhook_urls,
            WebhookKeys.parse(settings.webhook_secret.get_secret_value()),
            stable_seconds=settings.study_stable_seconds,
            give_up_after=timedelta(hours=settings.webhook_hours),
        )
    )
    await stack.enter_async_context(supervisor.running("webhooks", webhooks.run))


def closed_because(settings: Settings) -> str | None:
    """Return why a server must not run without credentials; None when it may. Blocks."""
    return reason_to_stay_closed(
        settings.data_dir,
        public_url=settings.public_url,
        trusted_proxies=settings.trusted_proxies,
        tokens_file=settings.tokens_file,
        allowed_origins=settings.cors_allowed_origins,
    )


@asynccontextmanager
async def open_runtime(
    settings: Settings,
    *,
    address: str | None = None,
    check: Callable[[Authenticator], None] | None = None,
    group: WorkerGroup | None = None,
) -> AsyncIterator[Runtime]:
    """Open everything; close it in reverse.

    Args:
        settings: All settings.
        address: Where this process serves HTTP, None for a command. A server follows Orthanc in
            the background; a command does what it was called for.
        check: Called with the credentials before anything but the stores starts; what it raises
            ends the start.
        group: Of a worker process; None for a process that opens its stores itself.

    Raises:
        Error: What can't be opened, with what to do.
    """
    supervisor = Supervisor()
    async with AsyncExitStack() as stack:
        if group is None:
            events_secret = make_events_secret(settings)
            connections = await stack.enter_async_context(
                open_connections(settings, address=address, events_secret=events_secret)
            )
            capacity = WHOLE_CAPACITY
        else:
            events_secret, connections = group.events_secret, group.connections
            capacity = WHOLE_CAPACITY.divided(group.workers)
            settings = share_of(settings, group.workers)
        database = await stack.enter_async_context(
            open_database(
                connections.mongodb_url,
                settings.mongodb_database,
                observe=settings.metrics_port is not None or is_configured(),
            )
        )
        sharing = await stack.enter_async_context(
            open_sharing(
                database, max_days=settings.share_max_days, page_max_size=settings.page_max_size
            )
        )
        authenticator = await stack.enter_async_context(
            open_authenticator(
                database,
                tokens_file=settings.tokens_path,
                oidc=settings.oidc_rules,
                find_by_share=sharing.principal_of,
                closed_because=await finish_in_thread(closed_because, settings),
                supervisor=supervisor,
            )
        )
        if authenticator.has_credentials:
            await finish_in_thread(remember_credentials, settings.data_dir)
        if check is not None:
            check(authenticator)
        orthanc = await enter_orthanc(stack, settings, connections, capacity)
        client = orthanc.client if orthanc else None
        keys = await read_url_keys(settings)
        frames = await enter_frames(
            stack,
            settings,
            keys,
            orthanc,
            database=database,
            capacity=capacity,
            supervisor=supervisor,
        )
        series_headers = SeriesHeaders(
            orthanc, limits=settings.walk_limits, max_seconds=settings.operation_seconds
        )
        resources = Resources(max_seconds=settings.operation_seconds)
        indexer = await stack.enter_async_context(
            open_indexer(
                database,
                on_changed=discarding(frames, resources),
                on_indexed=series_headers.arrived.add,
            )
        )
        sync = (
            SyncService(
                orthanc.client,
                orthanc.files.beginnings,
                database,
                indexer,
                poll_seconds=settings.sync_poll_seconds,
                interval_seconds=settings.sync_interval_seconds,
                limits=settings.walk_limits,
            )
            if orthanc
            else None
        )
        trees = Trees(page_max_size=settings.page_max_size, max_seconds=settings.operation_seconds)
        audit = await stack.enter_async_context(
            open_audit(database, retention=settings.audit_retention, supervisor=supervisor)
        )
        ingest = make_ingest(settings, orthanc, database, indexer, capacity)
        modalities = await stack.enter_async_context(
            open_modalities(
                database,
                client,
                ae_title=settings.own_ae_title,
                own_port=settings.orthanc_dicom_port,
                is_embedded=settings.embeds_orthanc,
                tls=settings.dicom_tls,
                requires_tls=settings.dicom_tls_required,
                query_seconds=settings.modality_seconds,
                answers_max=settings.remote_answers_max,
            )
        )
        deletion = Deletion(client, database, sync.reconciler) if client and sync else None
        labels = Labels(
            database,
            client,
            max_seconds=settings.operation_seconds,
            of_rules={rule.label for rule in settings.label_rules},
        )
        files = StudyFiles(orthanc, ingest, database, settings.walk_limits) if orthanc else None
        decoded = DecodedFiles(files, frames, orthanc.client) if orthanc and files else None
        replacements = Replacements(database, orthanc.client, files) if orthanc and files else None
        handlers = make_job_handlers(
            settings,
            orthanc,
            database,
            modalities=modalities,
            ingest=ingest,
            files=files,
            deletion=deletion,
            labels=labels,
            decoded=decoded,
            replacements=replacements,
        )
        job_runner = JobRunner(
            database,
            handlers,
            audit,
            RunnerLimits(
                concurrency=settings.job_concurrency,
                attempts_max=settings.job_attempts,
                retention=settings.job_retention,
            ),
        )
        jobs = Jobs(
            JobStore(database),
            retention=settings.job_retention,
            page_max_size=settings.page_max_size,
            on_queued=job_runner.wake,
        )
        folder = settings.worklist_path
        worklist_folder = WorklistFolder(database, folder) if folder else None
        worklist = Worklist(
            database,
            page_max_size=settings.page_max_size,
            on_changed=worklist_folder.refresh if worklist_folder else None,
        )
        runtime = Runtime(
            settings=settings,
            supervisor=supervisor,
            descriptors=DescriptorWatch(),
            readiness=Readiness(database.client),
            authenticator=authenticator,
            audit=audit,
            database=database,
            orthanc=client,
            whole_orthanc=orthanc,
            orthanc_url=connections.orthanc_url,
            orthanc_events_secret=events_secret,
            lists=Lists(
                trees,
                page_max_size=settings.page_max_size,
                max_seconds=settings.operation_seconds,
            ),
            trees=trees,
            sharing=sharing,
            labels=labels,
            jobs=jobs,
            anonymizations=Anonymizations(database, jobs),
            modifications=Modifications(database, jobs),
            replacements=replacements,
            exports=Exports(
                jobs,
                JobStore(database),
                ExportContents(database),
                ExportUrlSigner(keys, valid_seconds=settings.frame_url_seconds),
                orthanc=client,
                decoded=decoded,
                has_folder=settings.export_folder is not None,
            ),
            job_events=JobEvents(database, supervisor),
            job_runner=job_runner,
            backup_folder=BackupFolder(settings.backup_folder),
            forwarding=Forwarding(
                database,
                modalities,
                jobs,
                client,
                stable_seconds=settings.study_stable_seconds,
            ),
            worklist=worklist,
            worklist_folder=worklist_folder,
            modalities=modalities,
            headers=HeaderService(orthanc, series_headers=series_headers),
            series_headers=series_headers,
            resources=resources,
            indexer=indexer,
            ingest=ingest,
            upload_progress=UploadProgressRecords(database),
            frames=frames,
            downloads=Downloads(
                FileUrlSigner(keys, valid_seconds=settings.frame_url_seconds),
                orthanc,
                limits=settings.walk_limits,
                max_seconds=settings.operation_seconds,
            ),
            deletion=deletion,
            sync=sync,
            study_events=StudyEvents(
                database, stable_seconds=settings.study_stable_seconds, supervisor=supervisor
            ),
        )
        stack.push_async_callback(runtime.study_events.close)
        stack.push_async_callback(runtime.job_events.close)
        if address is not None:
            await enter_background(stack, runtime)
        yield runtime


def discarding(frames: FrameService, resources: Resources) -> Callable[[Iterable[str]], None]:
    """Return what forgets instances that were removed or replaced, given their identifiers."""

    def discard(instance_ids: Iterable[str]) -> None:
        frames.discard(instance_ids)
        resources.discard(instance_ids)

    return discard


async def enter_background(stack: AsyncExitStack, runtime: Runtime) -> None:
    """Run what a server does besides answering requests."""
    settings, database, supervisor = runtime.settings, runtime.database, runtime.supervisor
    tasks = [
        ("file descriptors", runtime.descriptors.run),
        ("modalities", runtime.modalities.run),
        ("forwarding", runtime.forwarding.run),
    ]
    if runtime.sync is not None:
        preparation = HeaderPreparation(
            database, runtime.series_headers, stable_seconds=settings.study_stable_seconds
        )
        tasks += [
            ("sync", runtime.sync.run),
            ("headers of arrivals", runtime.series_headers.run),
            ("prepared headers", preparation.run),
        ]
    if runtime.orthanc is not None and settings.label_rules:
        rules = LabelRules(
            database, runtime.labels, runtime.orthanc, runtime.audit, settings.label_rules
        )
        tasks.append(("label rules", rules.run))
    await stack.enter_async_context(
        following_removals(database, discarding(runtime.frames, runtime.resources), supervisor)
    )
    await enter_webhooks(stack, settings, database, supervisor)
    for name, run in [*tasks, ("jobs", runtime.job_runner.run)]:
        await stack.enter_async_context(supervisor.running(name, run))
    await enter_worklist(stack, runtime)
