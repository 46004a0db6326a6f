"""The context of resolvers: the services, the caller, loaders and limits of one operation."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import strawberry

from graph.authentication import Identify
from services.auth.roles import Principal
from services.auth.scope import NOTHING, Scope
from services.errors import Forbidden, LimitExceeded
from services.frames.signing import ShareGrant
from services.query.paging import Page, PageRequest
from services.query.stack_pages import FramePage, FramesRequest
from services.query.tree import OrderedSeries, Priors, Slice, StoredFields, Tree
from services.query.turns import CooperativeExecution
from services.runtime import Runtime

Level = Literal["Patient", "Study", "Series", "Instance"]
"""Levels of DICOM, named as their types."""


@dataclass(slots=True)
class AccessLog:
    """Collects the accesses of an operation, so that a tree of 2,000 URLs is one audit record.

    Attributes:
        fields: Permitted root fields, in their order.
        searches: The searches, whether they found anything or not.
        patient_ids: Orthanc's identifiers of the patients in the answer.
        study_ids: Orthanc's identifiers of the studies in the answer.
        number_of_objects: Objects of the answer that were counted.
        minted: Number of signed URLs, by the field that signed them.
        refusals: Root field and error code of each refusal.
        viewed: Patients and studies whose view is already recorded.
    """

    fields: list[str] = field(default_factory=list)
    searches: list[str] = field(default_factory=list)
    patient_ids: set[str] = field(default_factory=set)
    study_ids: set[str] = field(default_factory=set)
    number_of_objects: int = 0
    minted: Counter[str] = field(default_factory=Counter)
    refusals: list[tuple[str, str]] = field(default_factory=list)
    viewed: set[str] = field(default_factory=set)

    def add(self, documents: Iterable[Mapping[str, Any]], level: Level) -> None:
        """Add the patients and studies to which stored documents belong.

        Documents below a study belong to the same patient, so this is called only where a tree
        begins, and where it leads to other studies.

        Args:
            documents: Stored documents of one level.
            level: Their level.

        Raises:
            KeyError: A document has no patient or study, so it must not be shown.
        """
        for document in documents:
            if level == "Patient":
                self.patient_ids.add(document["_id"])
                continue
            self.patient_ids.add(document["orthancPatientId"])
            self.study_ids.add(document["_id" if level == "Study" else "orthancStudyId"])

    @property
    def is_new_view(self) -> bool:
        """Whether the answer shows a patient or study whose view is not recorded yet."""
        return not self.viewed >= self.patient_ids | self.study_ids

    def drain(self) -> "AccessLog":
        """Return the collected accesses and empty this log; `viewed` is kept and extended."""
        drained = replace(self, viewed=set(self.viewed))
        self.viewed |= self.patient_ids | self.study_ids
        self.fields, self.searches, self.patient_ids, self.study_ids = [], [], set(), set()
        self.number_of_objects, self.minted, self.refusals = 0, Counter(), []
        return drained


P = TypeVar("P", bound=Hashable)
C = TypeVar("C")

ParentT = TypeVar("ParentT", bound=Hashable)

PagedKey = tuple[ParentT, P]
"""A parent and the requested part of its children."""


K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BatchLoader(Generic[K, V]):
    """Loads the values that the fields of one level need with one call, each key once.

    Strawberry's DataLoader loads in the next iteration of the event loop. The fields of a wide
    level are executed in many turns; this loader waits for the last.

    Args:
        load: Loads values in the order of their keys.
        turns: Of the operation.
    """

    def __init__(
        self, load: Callable[[list[K]], Awaitable[Sequence[V]]], turns: CooperativeExecution
    ) -> None:
        self._load = load
        self._turns = turns
        self._values: dict[K, asyncio.Future[V]] = {}
        self._waiters: dict[K, list[asyncio.Future[V]]] = {}
        self._wanted: list[K] = []
        self._loading: set[asyncio.Task[None]] = set()

    def load(self, key: K) -> Awaitable[V]:
        """Return an awaitable for the value of a key, which resumes its caller in a turn.

        Each caller has a future of its own: a shared one would resume all ten thousand instances
        of a series in one iteration of the event loop.
        """
        if (loaded := self._values.get(key)) is not None:
            return loaded
        waiter: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(key, [])
        waiters.append(waiter)
        if len(waiters) == 1:
            if not self._wanted:
                task = asyncio.create_task(self._load_wanted())
                self._loading.add(task)
                task.add_done_callback(self._loading.discard)
            self._wanted.append(key)
        return waiter

    async def load_many(self, keys: Iterable[K]) -> list[V]:
        """Return the values of keys, in their order."""
        return await asyncio.gather(*(self.load(key) for key in keys))

    async def _load_wanted(self) -> None:
        await self._turns.wait_idle()
        wanted, self._wanted = self._wanted, []
        # The operation may have ended in between, by its time limit or with its connection.
        given_up = {key for key in wanted if all(one.done() for one in self._waiters[key])}
        for key in given_up:
            del self._waiters[key]
        keys = [key for key in wanted if key not in given_up]
        if not keys:
            return
        try:
            values = list(zip(keys, await self._load(keys), strict=True))
        except BaseException as exc:  # raised to all callers: otherwise they would never resume
            self._fail(keys, exc)
            if not isinstance(exc, Exception):
                raise
            return
        for key, value in values:
            self._values[key] = loaded = asyncio.get_running_loop().create_future()
            loaded.set_result(value)
            for waiter in self._waiters.pop(key):
                self._turns.deliver(waiter, value)

    def _fail(self, keys: Iterable[K], exc: BaseException) -> None:
        for waiter in chain.from_iterable(map(self._waiters.pop, keys)):
            if isinstance(exc, asyncio.CancelledError):
                waiter.cancel()
            elif not waiter.done():
                waiter.set_exception(exc)


class Loaders:
    """The loaders, named by the objects that they load and by their keys.

    Args:
        tree: Reads from MongoDB.
        turns: Of the operation.
        jobs_of_studies: Reads the jobs that the caller may see.
        sources_of_studies: Finds the sources of anonymised studies.
    """

    def __init__(
        self,
        tree: Tree,
        turns: CooperativeExecution,
        jobs_of_studies: Callable[[Sequence[str]], Awaitable[list[list[StoredFields]]]],
        sources_of_studies: Callable[[Sequence[str]], Awaitable[list[str | None]]],
    ) -> None:
        self.source_by_study_id = BatchLoader(sources_of_studies, turns)
        self.jobs_by_study_id = BatchLoader(jobs_of_studies, turns)
        self.patient_by_id = BatchLoader(tree.patients, turns)
        self.study_by_id = BatchLoader(tree.studies, turns)
        self.studies_by_uid = BatchLoader(tree.studies_of_uids, turns)
        self.series_by_id = BatchLoader(tree.series, turns)
        self.instance_by_id = BatchLoader(tree.instances, turns)
        self.series_by_study_id = BatchLoader(tree.series_of_studies, turns)
        self.instances_by_series: BatchLoader[
            PagedKey[OrderedSeries, Slice], list[StoredFields]
        ] = BatchLoader(_by_part(tree.instances_of_series), turns)
        self.frames_by_series: BatchLoader[PagedKey[OrderedSeries, FramesRequest], FramePage] = (
            BatchLoader(_by_part(tree.frames_of_series), turns)
        )
        self.priors_by_study_id: BatchLoader[PagedKey[str, Priors], list[StoredFields]] = (
            BatchLoader(_by_part(tree.priors_of_studies), turns)
        )
        self.studies_by_patient_id: BatchLoader[PagedKey[str, PageRequest], Page] = BatchLoader(
            _by_part(tree.studies_of_patients), turns
        )


def _by_part(
    load: Callable[[Sequence[ParentT], P], Awaitable[list[C]]],
) -> Callable[[list[PagedKey[ParentT, P]]], Awaitable[list[C]]]:
    """Load parents with the same requested part together; usually these are all."""

    async def load_all(keys: list[PagedKey[ParentT, P]]) -> list[C]:
        parents: dict[P, list[ParentT]] = defaultdict(list)
        for parent, part in keys:
            parents[part].append(parent)
        children: dict[PagedKey[ParentT, P], C] = {}
        for part, members in parents.items():
            for parent, found in zip(members, await load(members, part), strict=True):
                children[parent, part] = found
        return [children[key] for key in keys]

    return load_all


MAX_HEADER_BYTES = 32 * 1024 * 1024
"""Largest JSON of all headers of one operation, which is in memory until the answer is sent."""

_AFTERWARDS_SECONDS = 5.0
"""Time after a wait for another system, for reading from MongoDB and writing the answer."""

MAX_MEASUREMENTS = 20
"""Most regions of frames that one operation measures; each decodes a frame."""

MAX_HEADERS = 500
"""Most headers of one operation; if a series was never opened, a file is read for each."""


@dataclass(slots=True, kw_only=True)
class Context:
    """The services, the caller, and the state that the resolvers of an operation share.

    Attributes:
        principal: None if the caller could not be identified.
        base_url: Absolute address with which URLs in the answer start, without a slash at its end.
        now: The clock, in epoch seconds.
        connection_params: Payload of a WebSocket's `connection_init`.
        upload_id: How the caller named the upload that the request belongs to.
        identify: Identifies the caller again; None for requests, which are short.
        turns: Divide the work of the operation, so that others can use the event loop.
        tree: Reads single objects, within the scope of the caller.
        loaders: One command of MongoDB per level of a tree, within the same scope.
        nodes_left: Objects that the answer may still have.
        headers_left: Headers that it may still read from Orthanc.
        measurements_left: Regions of frames that it may still measure.
        headers_read: Instances whose headers were counted already, for attributes of frames.
        header_bytes_left: Bytes of JSON of headers that the answer may still have.
        accesses: Must be in the audit trail before the answer is sent.
        time_limit: Of the running operation; None: none.
    """

    runtime: Runtime
    principal: Principal | None
    base_url: str
    now: Callable[[], float] = time.time
    connection_params: object = None
    upload_id: str | None = None
    identify: Identify | None = field(default=None, repr=False)
    turns: CooperativeExecution = field(init=False)
    tree: Tree = field(init=False)
    loaders: Loaders = field(init=False)
    nodes_left: int = field(init=False)
    headers_left: int = field(init=False)
    measurements_left: int = field(init=False)
    headers_read: set[str] = field(init=False)
    header_bytes_left: int = field(init=False)
    accesses: AccessLog = field(default_factory=AccessLog)
    time_limit: asyncio.Timeout | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Initialize loaders and counts."""
        self.reset()

    async def for_operation(self) -> "Context":
        """Return the context of one operation, because a WebSocket runs several at once."""
        context = replace(self, accesses=AccessLog())
        await context.identify_again()
        context.reset()
        return context

    async def start_event(self) -> None:
        """Reset loaders and counts for a new event of a subscription."""
        self.accesses.fields.clear()
        await self.identify_again()
        self.reset()

    async def identify_again(self) -> None:
        """Identify the caller again: the token of a WebSocket may have been revoked or expired."""
        if self.identify is not None:
            self.principal = await self.identify()

    @property
    def scope(self) -> Scope:
        """The studies that the caller may see."""
        return self.principal.scope if self.principal is not None else NOTHING

    @property
    def grant(self) -> ShareGrant | None:
        """The share for which URLs are signed; None for callers with other credentials."""
        principal = self.principal
        if principal is None or principal.share_id is None or principal.expires_at is None:
            return None
        return ShareGrant(principal.share_id, int(principal.expires_at.timestamp()))

    def require_download(self) -> None:
        """Require the right to download archives and files, before a URL is signed.

        Raises:
            Forbidden: The share does not allow downloads.
        """
        if self.principal is not None and not self.principal.may_download:
            raise Forbidden("This share does not allow downloads.")

    def reset(self) -> None:
        """Reset loaders and counts, within the scope of the current caller."""
        self.turns = CooperativeExecution()
        self.tree = self.runtime.trees.within(self.scope)
        self.loaders = Loaders(
            self.tree,
            self.turns,
            self._jobs_of_studies,
            self.runtime.anonymizations.sources_of,
        )
        self.nodes_left = self.runtime.settings.query_max_nodes
        self.headers_left = MAX_HEADERS
        self.measurements_left = MAX_MEASUREMENTS
        self.headers_read = set()
        self.header_bytes_left = MAX_HEADER_BYTES

    async def _jobs_of_studies(self, study_ids: Sequence[str]) -> list[list[StoredFields]]:
        if self.principal is None:
            return [[] for _ in study_ids]
        return await self.runtime.jobs.of_studies(study_ids, self.principal)

    def prolong(self, seconds: float) -> None:
        """Allow the operation this time from now on, because it waits for another system.

        Args:
            seconds: Longest wait; a moment for what follows is added.
        """
        limit = self.time_limit
        if limit is not None and (ends_at := limit.when()) is not None:
            now = asyncio.get_running_loop().time()
            limit.reschedule(max(ends_at, now + seconds + _AFTERWARDS_SECONDS))

    def show(self, documents: Sequence[Mapping[str, Any]], level: Level) -> None:
        """Count the topmost documents of an answer, and log their patients and studies.

        Args:
            documents: Stored documents of one level.
            level: Their level.

        Raises:
            LimitExceeded: The answer becomes too large.
        """
        self.count_nodes(len(documents))
        self.accesses.add(documents, level)

    def count_nodes(self, count: int) -> None:
        """Count objects of the answer, before they are resolved.

        Args:
            count: The number; negative if fewer objects were found than were counted.

        Raises:
            LimitExceeded: The answer becomes too large.
        """
        self.nodes_left -= count
        self.accesses.number_of_objects += count
        if self.nodes_left < 0:
            raise LimitExceeded(
                f"The answer has more than {self.runtime.settings.query_max_nodes} objects. "
                "Ask for fewer with `first`, in several queries."
            )

    def allow_nodes(self, count: int) -> None:
        """Allow more objects in the answer, if other limits already bound their number."""
        self.nodes_left += count

    def spend_header(self) -> None:
        """Count a header, before it is read.

        Raises:
            LimitExceeded: The operation asks for too many.
        """
        self.headers_left -= 1
        if self.headers_left < 0:
            raise LimitExceeded(
                f"A query returns `tags` of at most {MAX_HEADERS} instances. Ask for fewer with "
                "`instances(first: ..., offset: ...)`, in several queries."
            )

    def spend_header_of(self, instance_id: str) -> None:
        """Count the header of an instance once, for the attributes of its frames.

        Raises:
            LimitExceeded: The operation asks for too many.
        """
        if instance_id not in self.headers_read:
            self.spend_header()
            self.headers_read.add(instance_id)

    def spend_measurement(self) -> None:
        """Count a region of a frame, before the frame is decoded.

        Raises:
            LimitExceeded: The operation asks for too many.
        """
        self.measurements_left -= 1
        if self.measurements_left < 0:
            raise LimitExceeded(
                f"A query returns `statistics` of at most {MAX_MEASUREMENTS} regions."
            )

    def spend_header_bytes(self, json_bytes: int) -> None:
        """Count the size of a header after it was read.

        Raises:
            LimitExceeded: The headers of the operation are too large in total.
        """
        self.header_bytes_left -= json_bytes
        if self.header_bytes_left < 0:
            raise LimitExceeded(
                f"The `tags` of a query have at most {MAX_HEADER_BYTES} bytes in total. Ask for "
                "fewer instances in one query."
            )


Info: TypeAlias = strawberry.Info[Context, None]
"""The `info` of resolvers."""
