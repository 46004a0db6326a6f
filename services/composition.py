"""The services as the settings want them: the parts that `open_runtime` puts together."""

import asyncio
import os
from contextlib import AsyncExitStack
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from services.connections import Connections
from services.deleting import Deletion
from services.dicom.layout import WalkLimits
from services.frames.keys import FrameUrlKeys, load_or_create_keys
from services.frames.opening import open_frames
from services.frames.sealed_folder import SealedFolder
from services.frames.service import FrameLimits, FrameService
from services.frames.signing import FrameUrlSigner
from services.ingest.archives import ArchiveLimits
from services.ingest.indexer import Indexer
from services.ingest.service import Ingest
from services.ingest.storing import FileStorage
from services.orthanc.client import OrthancClient
from services.orthanc.opening import Orthanc, open_orthanc
from services.settings import Settings
from services.sync.service import SyncService

_FRAMES_AT_ONCE = 2 * (os.cpu_count() or 1)
"""While Orthanc decodes one frame, another is windowed and encoded."""


async def enter_orthanc(
    stack: AsyncExitStack, settings: Settings, connections: Connections
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
            frames_at_once=_FRAMES_AT_ONCE,
        )
    )


async def enter_frames(
    stack: AsyncExitStack,
    settings: Settings,
    orthanc: Orthanc | None,
) -> FrameService:
    """Open what signs and renders frames."""
    given = settings.frame_url_keys
    keys = (
        FrameUrlKeys.parse(given.get_secret_value())
        if given
        else await asyncio.to_thread(load_or_create_keys, settings.data_dir)
    )
    limits = FrameLimits(
        cache_bytes=settings.frame_cache_bytes,
        slots=_FRAMES_AT_ONCE,
        queue_size=settings.frame_queue_size,
        max_pixels=settings.frame_max_pixels,
        decode_seconds=settings.frame_decode_seconds,
    )
    signer = FrameUrlSigner(keys, valid_seconds=settings.frame_url_seconds)
    client, frames = (orthanc.client, orthanc.frames) if orthanc else (None, None)
    folder = await asyncio.to_thread(_frame_folder, settings, keys)
    return await stack.enter_async_context(
        open_frames(signer, client, frames, limits, folder=folder)
    )


def _frame_folder(settings: Settings, keys: FrameUrlKeys) -> SealedFolder | None:
    if settings.frame_cache_directory is None:
        return None
    return SealedFolder(
        settings.frame_cache_directory, keys, max_bytes=settings.frame_cache_directory_bytes
    )


def make_ingest(settings: Settings, orthanc: Orthanc | None, indexer: Indexer) -> Ingest:
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
            WalkLimits(
                sequence_max_depth=settings.sequence_max_depth,
                frame_max_pixels=settings.frame_max_pixels,
            ),
            keep_tiff_preamble=settings.keep_tiff_preamble,
            landing=indexer.landing,
        )
    return Ingest(storage, limits=limits, concurrency=settings.upload_concurrency)


def make_sync(
    settings: Settings,
    orthanc: OrthancClient,
    database: AsyncDatabase[dict[str, Any]],
    indexer: Indexer,
) -> SyncService:
    """Make what keeps the index in step."""
    return SyncService(
        orthanc,
        database,
        indexer,
        poll_seconds=settings.sync_poll_seconds,
        interval_seconds=settings.sync_interval_seconds,
        frame_max_pixels=settings.frame_max_pixels,
    )


def make_deletion(
    orthanc: OrthancClient | None,
    database: AsyncDatabase[dict[str, Any]],
    sync: SyncService | None,
) -> Deletion | None:
    """Make what deletes; None while PACS integration is off."""
    if orthanc is None or sync is None:
        return None
    return Deletion(orthanc, database, sync.reconciler)
