"""The services, opened together and closed together: the composition root below HTTP."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from services.audit import Audit, open_audit
from services.composition import (
    enter_frames,
    enter_orthanc,
    make_deletion,
    make_ingest,
    make_sync,
)
from services.connections import open_connections
from services.credentials.authenticator import Authenticator, open_authenticator
from services.database import open_database
from services.deleting import Deletion
from services.frames.service import FrameService
from services.headers import HeaderService
from services.ingest.indexer import Indexer, open_indexer
from services.ingest.service import Ingest
from services.orthanc.client import OrthancClient
from services.search.lists import Lists
from services.settings import Settings
from services.stopping import stop
from services.sync.events import StudyEvents
from services.sync.removals import following_removals
from services.sync.service import SyncService
from services.tree import Tree

_log = logging.getLogger(__name__)

_PAUSE_SECONDS = 5.0
"""Before following Orthanc starts again after a failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """Everything that a request or a command may use.

    Attributes:
        orthanc: None while PACS integration is off, and with it `deletion` and `sync`.
        orthanc_url: Where Orthanc is, for admins.
        orthanc_events_secret: Proves that a notice of a deletion comes from our Orthanc.
    """

    settings: Settings
    authenticator: Authenticator
    audit: Audit
    database: AsyncDatabase[dict[str, Any]]
    orthanc: OrthancClient | None
    orthanc_url: str | None
    orthanc_events_secret: str
    lists: Lists
    tree: Tree
    headers: HeaderService
    indexer: Indexer
    ingest: Ingest
    frames: FrameService
    deletion: Deletion | None
    sync: SyncService | None
    study_events: StudyEvents


@asynccontextmanager
async def open_runtime(
    settings: Settings,
    *,
    address: str | None = None,
    check: Callable[[Authenticator], None] | None = None,
) -> AsyncIterator[Runtime]:
    """Open everything; close it in reverse.

    Args:
        settings: All settings.
        address: Where this process serves HTTP, None for a command. A server follows Orthanc in
            the background; a command does what it was called for.
        check: Called with the credentials before any store starts; what it raises ends the start.

    Raises:
        Error: What can't be opened, with what to do.
    """
    secret = settings.orthanc_events_secret
    events_secret = secret.get_secret_value() if secret else secrets.token_hex(16)
    async with AsyncExitStack() as stack:
        authenticator = await stack.enter_async_context(
            open_authenticator(
                tokens_file=settings.tokens_path,
                tokens_required=settings.tokens_file is not None,
                oidc=settings.oidc_rules,
            )
        )
        if check is not None:
            check(authenticator)
        connections = await stack.enter_async_context(
            open_connections(settings, address=address, events_secret=events_secret)
        )
        database = await stack.enter_async_context(
            open_database(connections.mongodb_url, settings.mongodb_database)
        )
        orthanc = await enter_orthanc(stack, settings, connections)
        client = orthanc.client if orthanc else None
        frames = await enter_frames(stack, settings, orthanc)
        indexer = await stack.enter_async_context(open_indexer(database, on_changed=frames.discard))
        sync = make_sync(settings, client, database, indexer) if client else None
        runtime = Runtime(
            settings=settings,
            authenticator=authenticator,
            audit=await stack.enter_async_context(
                open_audit(database, retention=_days(settings.audit_retention_days))
            ),
            database=database,
            orthanc=client,
            orthanc_url=connections.orthanc_url,
            orthanc_events_secret=events_secret,
            lists=Lists(
                page_max_size=settings.page_max_size, max_seconds=settings.operation_seconds
            ),
            tree=Tree(page_max_size=settings.page_max_size, max_seconds=settings.operation_seconds),
            headers=HeaderService(client),
            indexer=indexer,
            ingest=make_ingest(settings, orthanc, indexer),
            frames=frames,
            deletion=make_deletion(client, database, sync),
            sync=sync,
            study_events=StudyEvents(database, stable_seconds=settings.study_stable_seconds),
        )
        stack.push_async_callback(runtime.study_events.close)
        if address is not None:
            await stack.enter_async_context(following_removals(database, frames.discard))
            if sync is not None:
                await _run_in_background(stack, sync)
        yield runtime


async def _run_in_background(stack: AsyncExitStack, sync: SyncService) -> None:
    task = asyncio.create_task(_keep_running(sync.run), name="in step with Orthanc")

    stack.push_async_callback(stop, task)


async def _keep_running(run: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await run()
        except Exception:  # noqa: BLE001  # whatever it was, an index out of step is worse
            _log.exception("following Orthanc failed; it starts again in a moment")
        await asyncio.sleep(_PAUSE_SECONDS)


def _days(days: int | None) -> timedelta | None:
    return None if days is None else timedelta(days=days)
