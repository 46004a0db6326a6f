"""Where MongoDB and Orthanc are: given by settings, run by another process, or run by this one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from services.embedded.data_dir import Stores, read_running_stores
from services.embedded.failures import EmbeddedStoreError
from services.embedded.private_files import make_private_folder, write_private
from services.embedded.stores import open_stores
from services.settings import Settings
from services.sync.orthanc_script import deletion_script


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


@asynccontextmanager
async def open_connections(
    settings: Settings, *, address: str | None, events_secret: str
) -> AsyncIterator[Connections]:
    """Find both stores, and run those that nobody else provides.

    Args:
        settings: Name the stores, or leave them embedded.
        address: Where this process serves HTTP. None for a command, which beside a running server
            uses that server's embedded stores.
        events_secret: Proves to this server that a notice comes from its Orthanc.

    Raises:
        DataDirInUse: Another server uses the data directory.
        EmbeddedStoreError: A store can't be started.
    """
    if address is None:
        running = await asyncio.to_thread(read_running_stores, settings.data_dir)
        if running is not None:
            yield _connections(settings, running.stores)
            return
    scripts = []
    if address is not None and settings.embeds_orthanc:
        script = settings.data_dir / "orthanc-events.lua"
        await asyncio.to_thread(_write_script, script, address, events_secret)
        scripts.append(script)
    async with open_stores(
        data_dir=settings.data_dir,
        embed_mongodb=settings.embeds_mongodb,
        embed_orthanc=settings.embeds_orthanc,
        dicom_port=settings.orthanc_dicom_port,
        address=address or "",
        lua_scripts=scripts,
    ) as stores:
        yield _connections(settings, stores)


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
