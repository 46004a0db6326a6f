"""Frames for everybody: checked, cached, guarded and rendered."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from services.errors import (
    FrameNotFound,
    FrameNotRenderable,
    NotFound,
    OrthancNotFound,
    OrthancOutcomeUnknown,
    OrthancTimedOut,
    OrthancUnavailable,
    PacsDisabled,
)
from services.frames.cache import FrameCache, FrameKey, InstanceCache, InstanceFinder
from services.frames.pipeline import FrameRenderer, RenderedFrame
from services.frames.prefetch import FollowingFinder, LookAhead, Neighbours
from services.frames.quarantine import DeathRecords, Quarantine
from services.frames.queue import ParseOnceGate, RenderQueue
from services.frames.records import (
    PresentationLoader,
    RenderableInstance,
    StoredDeathRecords,
    find_following,
    find_instance,
    find_study_revision,
)
from services.frames.signing import ArchiveReference, FrameReference, FrameUrlSigner
from services.frames.variant import FrameVariant
from services.orthanc.client import OrthancClient
from services.orthanc.frames import OrthancFrames
from services.tasks import cancel_and_wait

StudyRevisionFinder = Callable[[str], Awaitable[str | None]]

_PREVIEW_OFF = "Pictures of this instance are switched off (useOrthancPreview is false)."


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """Limits of all frames together and of each; bytes and pixels as the names say.

    Attributes:
        slots: Frames that are rendered at once.
        queue_size: Frames that may wait for that.
        decode_seconds: Longest fetch of the header that a frame needs, in seconds.
    """

    cache_bytes: int = 256 * 1024 * 1024
    slots: int = 4
    queue_size: int = 64
    max_pixels: int = 64_000_000
    decode_seconds: float = 30.0


class FrameService:
    """The one way to a picture, for signed URLs and REST alike.

    Attributes:
        signer: Mints and verifies signed paths.
    """

    def __init__(
        self,
        *,
        signer: FrameUrlSigner,
        orthanc: OrthancClient | None,
        renderer: FrameRenderer | None,
        quarantine: Quarantine,
        limits: FrameLimits,
        find: InstanceFinder,
        following: FollowingFinder,
        find_study: StudyRevisionFinder,
    ) -> None:
        self.signer = signer
        self._find_study = find_study
        self._orthanc = orthanc
        self._renderer = renderer
        self._quarantine = quarantine
        self._recent = InstanceCache(find)
        self._cache = FrameCache(limits.cache_bytes)
        self._queue = RenderQueue(limits.slots, limits.queue_size)
        self._first = ParseOnceGate(self._queue.waiting)
        self._ahead = LookAhead(
            self._cache,
            self._queue,
            self._recent,
            Neighbours(following, self._recent),
            self._get,
        )

    def cached(self, reference: FrameReference) -> RenderedFrame | None:
        """Return a picture that is in memory; asks nobody.

        A revision never changes its pixels, so what is in memory needs no look at the index, which
        takes ten times as long as the answer. What another process removes, MongoDB tells.
        """
        key = _key(reference)
        frame = self._cache.find(key)
        if frame is not None:
            self._ahead.follow(key)
        return frame

    async def frame(self, reference: FrameReference) -> RenderedFrame:
        """Return the picture that a verified URL points to.

        Raises:
            FrameNotFound: There is no such frame, or the instance was replaced.
            FrameNotRenderable: It can't be shown, with the reason.
            FrameQuarantined, RenderQueueFull, OrthancUnavailable, DatabaseUnavailable:
                As their names say.
        """
        frame = self.cached(reference)
        if frame is not None:
            return frame
        instance = await self._recent.find(reference.instance_id, reference.revision)
        if instance is None:
            raise FrameNotFound
        return await self.render(instance, reference.frame_index, reference.variant)

    async def render(
        self,
        instance: RenderableInstance,
        frame_index: int,
        variant: FrameVariant = FrameVariant(),  # noqa: B008  # frozen
    ) -> RenderedFrame:
        """Return the picture of a frame of an instance, 0-based; errors are those of `frame`."""
        key = FrameKey(instance.id, instance.revision, frame_index, variant)
        frame = await self._get(instance, key)
        self._ahead.follow(key)
        return frame

    def discard(self, instance_ids: Iterable[str]) -> None:
        """Forget what is kept of instances that were removed or replaced."""
        self._ahead.discard(gone := set(instance_ids))
        for instance_id in gone:
            self._recent.discard(instance_id)
            self._cache.discard(instance_id)

    @asynccontextmanager
    async def archive(self, reference: ArchiveReference) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open Orthanc's ZIP of a study, streamed.

        Raises:
            NotFound: There is no such study, or it was deleted and stored again since the URL was
                minted.
            PacsDisabled: There is no Orthanc.
            DatabaseUnavailable: MongoDB does not answer.
        """
        if self._orthanc is None:
            raise PacsDisabled
        if await self._find_study(reference.study_id) != reference.revision:
            raise NotFound("Study not found")
        try:
            async with self._orthanc.study_archive(reference.study_id) as chunks:
                yield chunks
        except OrthancNotFound as exc:
            raise NotFound("Study not found") from exc

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look ahead while the block runs; stop everything at its end."""
        await self._quarantine.load()
        looking_ahead = asyncio.create_task(self._ahead.run())
        try:
            yield
        finally:
            await cancel_and_wait(looking_ahead)
            await self._cache.close()

    async def _get(self, instance: RenderableInstance, key: FrameKey) -> RenderedFrame:
        check_renderable(instance, key.frame_index)
        return await self._cache.get(key, lambda: self._render(instance, key))

    async def _render(self, instance: RenderableInstance, key: FrameKey) -> RenderedFrame:
        if self._renderer is None:
            raise PacsDisabled
        frame = f"{key.instance_id}/{key.revision}/{key.frame_index}"
        await self._quarantine.refresh()
        alone = self._quarantine.is_suspect(frame)
        try:
            async with (
                self._first.before_others(instance),
                self._queue.slot(alone=alone),
                self._quarantine.watched(frame),
            ):
                return await self._renderer.render(instance, key.frame_index, key.variant)
        except OrthancOutcomeUnknown:
            if self._quarantine.holds(frame):
                self.discard([instance.id])
            raise


def check_renderable(instance: RenderableInstance, frame_index: int) -> None:
    """Check a frame of an instance before anything is asked of Orthanc.

    Raises:
        FrameNotRenderable: Nothing of this instance can be shown, with the reason.
        FrameNotFound: `frame_index` (0-based) is out of range.
    """
    if not instance.use_orthanc_preview:
        raise FrameNotRenderable(_PREVIEW_OFF)
    if instance.number_of_frames == 0:
        raise FrameNotRenderable(instance.not_renderable_reason)
    if not 0 <= frame_index < instance.number_of_frames:
        raise FrameNotFound


def _key(reference: FrameReference) -> FrameKey:
    return FrameKey(
        reference.instance_id, reference.revision, reference.frame_index, reference.variant
    )


@asynccontextmanager
async def open_frames(
    signer: FrameUrlSigner,
    orthanc: OrthancClient | None,
    sources: OrthancFrames | None,
    limits: FrameLimits = FrameLimits(),  # frozen
    *,
    find: InstanceFinder = find_instance,
    following: FollowingFinder = find_following,
    find_study: StudyRevisionFinder = find_study_revision,
    records: DeathRecords | None = None,
) -> AsyncIterator[FrameService]:
    """Open the frames.

    Args:
        signer: Mints and verifies signed paths.
        orthanc: None while PACS integration is off.
        sources: Orthanc's frames; None while PACS integration is off.
        limits: Limits of memory, queue and pixels.
        find: Finds an instance by Orthanc's identifier.
        following: Finds the instances after one in its series.
        find_study: Finds the revision of a study, None when it is not there.
        records: Where deaths of Orthanc are kept; MongoDB when None.
    """

    async def is_dead() -> bool:
        return orthanc is not None and await _is_dead(orthanc)

    renderer = None
    if orthanc is not None and sources is not None:
        displays = PresentationLoader(orthanc, fetch_seconds=limits.decode_seconds)
        renderer = FrameRenderer(sources, displays, max_pixels=limits.max_pixels)
    service = FrameService(
        signer=signer,
        orthanc=orthanc,
        renderer=renderer,
        quarantine=Quarantine(records or StoredDeathRecords(), is_dead),
        limits=limits,
        find=find,
        following=following,
        find_study=find_study,
    )
    async with service.running():
        yield service


async def _is_dead(orthanc: OrthancClient) -> bool:
    try:
        await orthanc.system()
    except OrthancTimedOut:
        return False
    except OrthancUnavailable:
        return True
    return False
