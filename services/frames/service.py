"""The one way to a picture: checked, cached, guarded and rendered."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from services.errors import (
    DatabaseUnavailable,
    FrameDamaged,
    FrameNotFound,
    FrameNotRenderable,
    NotFound,
    OrthancNotFound,
    PacsDisabled,
    RendererCrashed,
)
from services.frames.cache import FrameCache, FrameKey, InstanceCache, InstanceFinder, RenderedFrame
from services.frames.pipeline import FramePipeline, StoredFrame
from services.frames.prefetch import FollowingFinder, LookAhead, Neighbours
from services.frames.quarantine import FrameId, Quarantine
from services.frames.queue import RenderRate
from services.frames.records import (
    CrashRecords,
    FrameAttributes,
    PresentationLoader,
    RenderableInstance,
    find_following,
    find_instance,
    find_study_revision,
)
from services.frames.renderer import RendererLimits, open_renderers
from services.frames.signing import ArchiveReference, FrameReference, FrameUrlSigner
from services.frames.statistics import Ellipse, RegionStatistics, measure
from services.frames.stored_copies import StoredCopies
from services.frames.variant import FrameVariant
from services.observability.metrics import FRAMES
from services.orthanc.client import OrthancClient
from services.orthanc.frames import OrthancFrames
from services.tasks import Supervisor, finish_in_thread

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

StudyRevisionFinder = Callable[[str], Awaitable[str | None]]

NotRenderableWriter = Callable[[str, str, str], Awaitable[None]]
"""Records an instance and its revision as not renderable, with the reason."""

_PREVIEW_OFF = "Pictures of this instance are switched off (useOrthancPreview is false)."

_RENDERINGS_PER_SECOND = 60.0
"""Windows and sizes of one instance: as many as a screen shows while a window is dragged."""

_RENDERINGS_AT_ONCE = 300


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """Limits of all frames together and of each; bytes and pixels as the names say.

    Attributes:
        slots: Native frames that are rendered at once.
        queue_size: Frames that may wait for that.
        decode_seconds: Longest fetch of the header that a frame needs, in seconds.
        renderers: Of the processes that decode what is encoded.
    """

    cache_bytes: int = 256 * 1024 * 1024
    slots: int = 4
    queue_size: int = 64
    max_pixels: int = 64_000_000
    decode_seconds: float = 30.0
    renderers: RendererLimits = field(default_factory=RendererLimits)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameLoad:
    """How busy the frames are.

    Attributes:
        cache_bytes: Memory of the pictures that are kept, in bytes.
        waiting: Frames that wait to be rendered.
        quarantined: Frames that are not rendered any more.
    """

    cache_bytes: int
    waiting: int
    quarantined: int


class FrameService:
    """Frames for signed URLs and REST alike.

    Args:
        signer: Mints and verifies signed paths.
        orthanc: None while PACS integration is off, and with it `pipeline`.
        pipeline: Renders a frame.
        quarantine: Decides which frames are rendered.
        limits: Limits of memory, queue and pixels.
        find: Finds an instance by Orthanc's identifier.
        following: Finds the instances after one in its series.
        find_study: Finds the revision of a study, None when it is not there.
        mark_not_renderable: Called for an instance whose only frame can't be decoded.
    """

    def __init__(
        self,
        *,
        signer: FrameUrlSigner,
        orthanc: OrthancClient | None,
        pipeline: FramePipeline | None,
        quarantine: Quarantine,
        limits: FrameLimits,
        find: InstanceFinder,
        following: FollowingFinder,
        find_study: StudyRevisionFinder,
        mark_not_renderable: NotRenderableWriter | None,
    ) -> None:
        self.signer = signer
        self._find_study = find_study
        self._mark_not_renderable = mark_not_renderable
        self._orthanc = orthanc
        self._pipeline = pipeline
        self._quarantine = quarantine
        self._instances = InstanceCache(find)
        self._cache = FrameCache(limits.cache_bytes)
        self._rate = RenderRate(per_second=_RENDERINGS_PER_SECOND, burst=_RENDERINGS_AT_ONCE)
        self._ahead = LookAhead(
            self._cache,
            is_idle=self._is_idle,
            is_suspect=quarantine.is_suspect,
            instances=self._instances,
            neighbours=Neighbours(following, self._instances),
            render=partial(self._get, is_ahead=True),
        )

    def cached(self, reference: FrameReference) -> RenderedFrame | None:
        """Return a picture that is in memory, without any I/O.

        A revision never changes its pixels, so what is in memory needs no look at the index, which
        takes ten times as long as the answer. MongoDB's change stream reports what other processes
        remove.
        """
        key = _key(reference)
        frame = self._cache.find(key)
        if frame is not None:
            FRAMES.found()
            self._ahead.follow(key)
        return frame

    async def frame(self, reference: FrameReference) -> RenderedFrame:
        """Return the picture that a verified URL points to.

        Raises:
            FrameNotFound: There is no such frame, or the instance was replaced.
            FrameNotRenderable: It can't be shown, with the reason.
            FrameQuarantined, RenderQueueFull, RendererUnavailable, OrthancUnavailable,
                DatabaseUnavailable: As their names say.
        """
        frame = self.cached(reference)
        if frame is not None:
            return frame
        instance = await self._instances.find(reference.instance_id, reference.revision)
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
        if not (variant.is_as_stored or self._cache.knows(key)):
            self._rate.take(instance.id)
        frame = await self._get(instance, key)
        self._ahead.follow(key)
        return frame

    async def attributes(
        self, instance_id: str, revision: str, frame_index: int
    ) -> FrameAttributes:
        """Return windows and geometry of a frame, 0-based, of an instance with many.

        Raises:
            FrameNotFound: There is no such instance, or it was replaced.
            PacsDisabled: There is no Orthanc.
            OrthancUnavailable, DatabaseUnavailable: As their names say.
        """
        if self._pipeline is None:
            raise PacsDisabled
        instance = await self._instances.find(instance_id, revision)
        if instance is None:
            raise FrameNotFound
        return await self._pipeline.attributes(instance, frame_index)

    async def stored(self, instance: RenderableInstance, frame_index: int) -> StoredFrame:
        """Return the bytes of a frame, 0-based, as they are in the file; native ones little endian.

        Raises:
            FrameNotFound, FrameNotRenderable, RenderQueueFull, OrthancUnavailable: As `frame`.
            PacsDisabled: There is no Orthanc.
        """
        check_renderable(instance, frame_index)
        if self._pipeline is None:
            raise PacsDisabled
        return await self._pipeline.stored(instance, frame_index)

    async def decoded(self, instance: RenderableInstance, frame_index: int) -> StoredFrame:
        """Return the samples of a frame, 0-based, as Explicit VR Little Endian stores them.

        Errors are those of `frame`.
        """
        check_renderable(instance, frame_index)
        frame = FrameId(instance.id, instance.revision, frame_index)
        return await self._guarded(frame, lambda pipeline: pipeline.decoded(instance, frame_index))

    async def statistics(
        self, instance_id: str, revision: str, frame_index: int, ellipse: Ellipse
    ) -> RegionStatistics | None:
        """Return the statistics of a region of a frame, 0-based; None where it has no values.

        Errors are those of `frame`.
        """
        instance = await self._instances.find(instance_id, revision)
        if instance is None:
            raise FrameNotFound
        if self._pipeline is None:
            raise PacsDisabled
        stored = await self.decoded(instance, frame_index)
        shown = await self._pipeline.presentation(instance, frame_index)
        return await finish_in_thread(
            measure, stored.content, shown.description, shown.display, ellipse
        )

    def discard(self, instance_ids: Iterable[str]) -> None:
        """Forget what is kept of instances that were removed or replaced."""
        self._ahead.discard(gone := set(instance_ids))
        for instance_id in gone:
            self._instances.discard(instance_id)
            self._cache.discard(instance_id)

    @asynccontextmanager
    async def archive(self, reference: ArchiveReference) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open Orthanc's ZIP of a study or of one of its series, streamed.

        Raises:
            NotFound: There is no such study or series, or the study was deleted and stored again
                since the URL was minted.
            PacsDisabled: There is no Orthanc.
            DatabaseUnavailable: MongoDB does not answer.
        """
        if self._orthanc is None:
            raise PacsDisabled
        if await self._find_study(reference.study_id) != reference.revision:
            raise NotFound("Study not found")
        if reference.series_id is None:
            opened, name = self._orthanc.study_archive(reference.study_id), "Study"
        else:
            opened, name = self._orthanc.series_archive(reference.series_id), "Series"
        try:
            async with opened as chunks:
                yield chunks
        except OrthancNotFound as exc:
            raise NotFound(f"{name} not found") from exc

    @asynccontextmanager
    async def running(self, supervisor: Supervisor) -> AsyncIterator[None]:
        """Look ahead while the block runs; stop everything at its end.

        Args:
            supervisor: Of the background tasks of this process.
        """
        await self._quarantine.load()
        try:
            async with supervisor.running("look-ahead of frames", self._ahead.run):
                yield
        finally:
            await self._cache.close()

    @property
    def load(self) -> "FrameLoad":
        """What is kept, and what waits."""
        return FrameLoad(
            cache_bytes=self._cache.size_bytes,
            waiting=0 if self._pipeline is None else self._pipeline.waiting,
            quarantined=self._quarantine.quarantined,
        )

    def _is_idle(self) -> bool:
        return self._pipeline is not None and self._pipeline.is_idle

    async def _get(
        self, instance: RenderableInstance, key: FrameKey, *, is_ahead: bool = False
    ) -> RenderedFrame:
        check_renderable(instance, key.frame_index)
        return await self._cache.get(key, lambda: self._render(instance, key, is_ahead=is_ahead))

    async def _render(
        self, instance: RenderableInstance, key: FrameKey, *, is_ahead: bool
    ) -> RenderedFrame:
        frame = FrameId(key.instance_id, key.revision, key.frame_index)
        try:
            with FRAMES.rendering(is_ahead=is_ahead):
                return await self._guarded(
                    frame, lambda pipeline: pipeline.render(instance, key.frame_index, key.variant)
                )
        except FrameDamaged as exc:
            if instance.number_of_frames == 1:
                await self._learn(instance, str(exc))
            raise

    async def _learn(self, instance: RenderableInstance, reason: str) -> None:
        """Let the index say what decoding showed, so that nobody is promised this picture again."""
        if self._mark_not_renderable is None:
            return
        try:
            await self._mark_not_renderable(instance.id, instance.revision, reason)
        except DatabaseUnavailable:
            _log.warning("%s stays renderable in the index: no database", instance.id)
        self.discard([instance.id])

    async def _guarded(self, frame: FrameId, work: Callable[[FramePipeline], Awaitable[_T]]) -> _T:
        """Do what may end a renderer, unless this frame did so before."""
        if self._pipeline is None:
            raise PacsDisabled
        await self._quarantine.refresh()
        self._quarantine.check(frame)
        try:
            done = await work(self._pipeline)
        except RendererCrashed:
            await self._quarantine.record_crash(frame)
            raise
        await self._quarantine.clear(frame)
        return done


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
    mark_not_renderable: NotRenderableWriter | None = None,
    records: CrashRecords | None = None,
    supervisor: Supervisor | None = None,
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
        mark_not_renderable: Called for an instance whose only frame can't be decoded; None: nobody.
        records: Where crashes of renderers are kept; MongoDB when None.
        supervisor: Of the background tasks of this process; None: one of its own.
    """
    async with AsyncExitStack() as stack:
        pipeline = None
        if orthanc is not None and sources is not None:
            pipeline = await _open_pipeline(stack, orthanc, sources, limits)
        service = FrameService(
            signer=signer,
            orthanc=orthanc,
            pipeline=pipeline,
            quarantine=Quarantine(records or CrashRecords()),
            limits=limits,
            find=find,
            following=following,
            find_study=find_study,
            mark_not_renderable=mark_not_renderable,
        )
        await stack.enter_async_context(service.running(supervisor or Supervisor()))
        yield service


async def _open_pipeline(
    stack: AsyncExitStack, orthanc: OrthancClient, sources: OrthancFrames, limits: FrameLimits
) -> FramePipeline:
    return FramePipeline(
        sources,
        StoredCopies(orthanc, fetch_seconds=limits.decode_seconds),
        PresentationLoader(orthanc, fetch_seconds=limits.decode_seconds),
        await stack.enter_async_context(open_renderers(limits.renderers)),
        slots=limits.slots,
        # One more than there are renderers: its bytes are fetched while the others are decoded.
        encoded_slots=limits.renderers.processes + 1,
        queue_size=limits.queue_size,
        max_pixels=limits.max_pixels,
    )
