"""Finds MongoDB and Orthanc: those of the settings, or embedded ones that this process runs."""

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from services.database import open_database
from services.embedded.data_dir import Stores, read_running_stores
from services.embedded.failures import EmbeddedStoreError
from services.embedded.orthanc_configuration import DEFAULT_AE_TITLE, DicomServer
from services.embedded.stores import open_stores
from services.files import make_private_folder, write_private
from services.modalities.tls import client_context
from services.orthanc.capacity import divided
from services.settings import Settings
from services.sync.orthanc_script import deletion_script
from services.tasks import finish_in_thread


@dataclass(frozen=True, slots=True)
class Connections:
    """How to reach both stores.

    Attributes:
        orthanc_url: Base of Orthanc's REST API; None while PACS integration is off.
    """

    mongodb_url: str = field(repr=False)
    orthanc_url: str | None
    orthanc_username: str
    orthanc_password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerGroup:
    """What the worker processes of one server have in common.

    Attributes:
        connections: The stores; embedded ones are run by the parent of the workers.
        events_secret: Authenticates notices of deletions from their Orthanc.
        workers: Their number; each has a share of the limits of a process.
    """

    connections: Connections
    events_secret: str = field(repr=False)
    workers: int


def share_of(settings: Settings, workers: int) -> Settings:
    """Return the settings of one of several workers, with its share of the limits of a process."""
    processors = os.cpu_count() or 1
    return settings.model_copy(
        update={
            "frame_cache_bytes": settings.frame_cache_bytes // workers,
            "frame_queue_size": divided(settings.frame_queue_size, workers),
            "renderer_processes": divided(settings.renderer_processes or processors, workers),
            "websockets_per_client": divided(settings.websockets_per_client, workers),
            "archives_per_client": divided(settings.archives_per_client, workers),
        }
    )


@asynccontextmanager
async def open_connections(
    settings: Settings, *, address: str | None, events_secret: str
) -> AsyncIterator[Connections]:
    """Find both stores, and run those that are not in the settings.

    Args:
        settings: All settings.
        address: Where this process serves HTTP. None for a command, which uses the embedded stores
            of a running server, if there is one.
        events_secret: Authenticates notices of Orthanc to this server.

    Raises:
        DataDirInUse: Another server uses the data directory.
        EmbeddedStoreError: A store can't be started.
        TlsFilesUnusable: A certificate can't be used.
    """
    if settings.dicom_tls is not None:
        # Orthanc would only say that it does not start.
        await finish_in_thread(client_context, settings.dicom_tls)
    if address is None:
        running = await finish_in_thread(read_running_stores, settings.data_dir)
        if running is not None:
            yield _connections(settings, running.stores)
            return
    scripts = []
    if address is not None and settings.embeds_orthanc:
        script = settings.data_dir / "orthanc-events.lua"
        await finish_in_thread(_write_script, script, address, events_secret)
        scripts.append(script)
    async with open_stores(
        data_dir=settings.data_dir,
        embed_mongodb=settings.embeds_mongodb,
        embed_orthanc=settings.embeds_orthanc,
        ae_title=settings.own_ae_title or DEFAULT_AE_TITLE,
        dicom=_dicom_server(settings),
        tls=settings.dicom_tls,
        address=address or "",
        lua_scripts=scripts,
        orthanc_memory_bytes=settings.orthanc_memory_bytes,
        worklist_folder=settings.worklist_path,
    ) as stores:
        yield _connections(settings, stores)


def _dicom_server(settings: Settings) -> DicomServer | None:
    if settings.orthanc_dicom_port is None:
        return None
    return DicomServer(
        settings.orthanc_dicom_port,
        unknown_may_store=settings.dicom_unknown_may_store,
        check_host=settings.dicom_check_host,
        requires_tls=settings.dicom_tls_required,
    )


def _write_script(path: Path, address: str, secret: str) -> None:
    make_private_folder(path.parent)
    write_private(path, deletion_script(address, secret))


def _connections(settings: Settings, stores: Stores) -> Connections:
    given_mongodb = settings.mongodb_url
    mongodb_url = given_mongodb.get_secret_value() if given_mongodb else stores.mongodb_url
    if mongodb_url is None:
        raise EmbeddedStoreError(
            "The server on this data directory runs no MongoDB: set MONGODB_URL."
        )
    if settings.orthanc_url is not None and settings.enable_pacs_integration:
        return Connections(
            mongodb_url,
            settings.orthanc_url,
            settings.orthanc_username,
            settings.orthanc_password.get_secret_value(),
        )
    return Connections(
        mongodb_url,
        stores.orthanc_url if settings.enable_pacs_integration else None,
        stores.orthanc_username,
        stores.orthanc_password,
    )


def make_events_secret(settings: Settings) -> str:
    """Return the secret that authenticates notices from the Orthanc of this server."""
    given = settings.orthanc_events_secret
    return given.get_secret_value() if given else secrets.token_hex(16)


def can_have_credentials(settings: Settings) -> bool:
    """Return whether there may be credentials, before a store is started. Blocks."""
    return (
        settings.oidc_issuer is not None
        or not settings.embeds_mongodb
        or (settings.data_dir / "mongodb").exists()
        or settings.tokens_path.exists()
    )


@asynccontextmanager
async def open_database_alone(settings: Settings) -> AsyncIterator[AsyncDatabase[dict[str, Any]]]:
    """Open the database for a command that needs nothing else.

    It is that of MONGODB_URL, otherwise that of the running server on this data directory,
    otherwise the embedded one, which is started for as long as it is used.

    Args:
        settings: All settings.

    Raises:
        DataDirInUse: A server on this data directory is starting.
        EmbeddedStoreError: MongoDB can't be started.
        DatabaseUnavailable: MongoDB does not answer.
    """
    given = settings.mongodb_url
    running = None if given else await finish_in_thread(read_running_stores, settings.data_dir)
    async with open_stores(
        data_dir=settings.data_dir,
        embed_mongodb=given is None and running is None,
        embed_orthanc=False,
    ) as started:
        connections = _connections(settings, running.stores if running else started)
        async with open_database(connections.mongodb_url, settings.mongodb_database) as database:
            yield database
