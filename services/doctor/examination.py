"""The whole examination, part after part."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from services.doctor.exposure import (
    examine_credentials,
    examine_dicom_tls,
    examine_frame_url_keys,
    examine_public_url,
)
from services.doctor.findings import Finding, ok, problem
from services.doctor.folders import examine_backups, examine_worklist_folder
from services.doctor.machine import examine_data_dir, examine_python
from services.doctor.mongodb import examine_mongodb, read_tokens
from services.doctor.orthanc import ADVICE_EMBEDDED, examine_orthanc
from services.embedded.data_dir import Stores, read_running_stores
from services.embedded.stores import open_stores
from services.errors import Error
from services.settings import Settings
from services.tasks import finish_in_thread


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Examine every part; findings come as they are made.

    Embedded stores of a server that runs on the same data directory are used as they are;
    without one they are started for the examination.

    Args:
        settings: All settings.
    """
    yield examine_python()
    yield await finish_in_thread(examine_data_dir, settings.data_dir)
    keys = settings.frame_url_keys
    yield examine_frame_url_keys(keys.get_secret_value() if keys else None)
    if settings.worklist_folder is not None:
        yield await finish_in_thread(examine_worklist_folder, settings.worklist_folder)
    if settings.dicom_tls is not None:
        yield await finish_in_thread(examine_dicom_tls, settings.dicom_tls, datetime.now(UTC))
    if settings.backup_folder is not None:
        yield await finish_in_thread(examine_backups, settings.backup_folder, datetime.now(UTC))
    for finding in await _examine_stores(settings):
        yield finding


async def _examine_stores(settings: Settings) -> list[Finding]:
    running = await finish_in_thread(read_running_stores, settings.data_dir)
    if running is not None:
        found = ok("Embedded stores", f"of the server that runs (process {running.pid})")
        return [found, *await _examine_both(settings, running.stores)]
    try:
        async with open_stores(
            data_dir=settings.data_dir,
            embed_mongodb=settings.embeds_mongodb,
            embed_orthanc=settings.embeds_orthanc,
            orthanc_memory_bytes=settings.orthanc_memory_bytes,
        ) as stores:
            return await _examine_both(settings, stores)
    except Error as exc:
        outside = await _examine_both(settings, Stores())
        return [problem("Embedded stores", exc.message), *outside]


async def _examine_both(settings: Settings, stores: Stores) -> list[Finding]:
    """Examine the stores from outside where the settings name one, else the embedded ones."""
    mongodb, orthanc = await asyncio.gather(
        _examine_mongodb(settings, stores), _examine_orthanc(settings, stores)
    )
    return [*mongodb, *orthanc, *await _examine_credentials(settings, stores)]


async def _examine_mongodb(settings: Settings, stores: Stores) -> list[Finding]:
    given = settings.mongodb_url
    url = given.get_secret_value() if given else stores.mongodb_url
    return [] if url is None else await examine_mongodb(url, settings.mongodb_database)


async def _examine_credentials(settings: Settings, stores: Stores) -> list[Finding]:
    given = settings.mongodb_url
    url = given.get_secret_value() if given else stores.mongodb_url
    try:
        tokens = await read_tokens(url, settings.mongodb_database) if url is not None else []
    except Error:
        # What is wrong with MongoDB is a finding of its own.
        return []
    credentials = await examine_credentials(tokens, oidc=settings.oidc_rules, now=datetime.now(UTC))
    has_credentials = settings.oidc_rules is not None or bool(tokens)
    return [
        *credentials,
        examine_public_url(settings.public_url, has_credentials=has_credentials),
    ]


async def _examine_orthanc(settings: Settings, stores: Stores) -> list[Finding]:
    if not settings.enable_pacs_integration:
        return [ok("Orthanc", "off (ENABLE_PACS_INTEGRATION=false)")]
    if settings.orthanc_url is not None:
        password = settings.orthanc_password.get_secret_value()
        return await examine_orthanc(settings.orthanc_url, settings.orthanc_username, password)
    if stores.orthanc_url is None:
        return []
    return await examine_orthanc(
        stores.orthanc_url,
        stores.orthanc_username,
        stores.orthanc_password,
        advice=ADVICE_EMBEDDED,
        is_embedded=True,
    )
