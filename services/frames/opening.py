"""Open the frames: what a running server and a command need of them."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from services.errors import OrthancTimedOut, OrthancUnavailable
from services.frames.disk_cache import open_disk_cache
from services.frames.displays import DisplayCatalogue
from services.frames.neighbours import FollowingFinder
from services.frames.quarantine import DeathRecords, Quarantine
from services.frames.recent import InstanceFinder
from services.frames.records import (
    StoredDeathRecords,
    all_instance_ids,
    find_following,
    find_instance,
)
from services.frames.rendering import FrameRenderer
from services.frames.sealed_folder import SealedFolder
from services.frames.service import FrameLimits, FrameService
from services.frames.signing import FrameUrlSigner
from services.orthanc.client import OrthancClient
from services.orthanc.frames import OrthancFrames


@asynccontextmanager
async def open_frames(
    signer: FrameUrlSigner,
    orthanc: OrthancClient | None,
    sources: OrthancFrames | None,
    limits: FrameLimits = FrameLimits(),  # noqa: B008  # frozen
    *,
    find: InstanceFinder = find_instance,
    following: FollowingFinder = find_following,
    all_ids: Callable[[], AsyncIterator[str]] = all_instance_ids,
    records: DeathRecords | None = None,
    folder: SealedFolder | None = None,
) -> AsyncIterator[FrameService]:
    """Open the frames.

    Args:
        signer: Mints and verifies signed paths.
        orthanc: None while PACS integration is off.
        sources: Orthanc's frames; None while PACS integration is off.
        limits: Limits of memory, queue and pixels.
        find: Finds an instance by Orthanc's identifier.
        following: Finds the instances after one in its series.
        all_ids: Finds Orthanc's identifiers of all instances.
        records: Where deaths of Orthanc are kept; MongoDB when None.
        folder: Keeps pictures over a restart; None for memory only.
    """

    async def is_dead() -> bool:
        return orthanc is not None and await _is_dead(orthanc)

    renderer = None
    if orthanc is not None and sources is not None:
        displays = DisplayCatalogue(orthanc, fetch_seconds=limits.decode_seconds)
        renderer = FrameRenderer(sources, displays, max_pixels=limits.max_pixels)
    async with AsyncExitStack() as stack:
        disk = await stack.enter_async_context(open_disk_cache(folder)) if folder else None
        service = FrameService(
            signer=signer,
            orthanc=orthanc,
            renderer=renderer,
            quarantine=Quarantine(records or StoredDeathRecords(), is_dead),
            limits=limits,
            find=find,
            following=following,
            disk=disk,
            all_ids=all_ids,
        )
        await stack.enter_async_context(service.running())
        yield service


async def _is_dead(orthanc: OrthancClient) -> bool:
    try:
        await orthanc.system()
    except OrthancTimedOut:
        return False
    except OrthancUnavailable:
        return True
    return False
