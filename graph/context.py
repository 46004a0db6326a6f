"""What every resolver may use, made for one request or one WebSocket."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
"""Levels of DICOM, by the names of their types."""


@dataclass(slots=True)
class AccessLog:
    """Filled in by resolvers without I/O: a tree of 2,000 URLs is one record, not 2,000.

    Attributes:
        fields: Root fields that were let through, in their order.
        searches: What was searched for, found or not.
        patient_ids: Orthanc's identifiers of the patients that are in the answer.
        study_ids: Orthanc's identifiers of the studies that are in the answer.
        number_of_objects: Objects of the answer that were counted.
        minted: How many URLs, by the field that minted them.
        refusals: Root field and code of what was refused.
        viewed: Patients and studies whose view has a record already.
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
        """Add the patients and studies that stored documents belong to.

        What is below a study that was added belongs to the same patient: call it where a tree
        begins, and where it leads to other studies.

        Args:
            documents: Stored documents of one level.
            level: Which.

        Raises:
            KeyError: A document does not say whose it is: it must not be shown.
        """
        for document in documents:
            if level == "Patient":
                self.patient_ids.add(document["_id"])
                continue
            self.patient_ids.add(document["orthancPatientId"])
            self.study_ids.add(document["_id" if level == "Study" else "orthancStudyId"])

    @property
    def is_new_view(self) -> bool:
        """Whether the answer shows a patient or study whose view has no audit record yet."""
        return not self.viewed >= self.patient_ids | self.study_ids

    def drain(self) -> "AccessLog":
        """Return what was collected and empty this log; `viewed` stays, with who was added."""
        drained = replace(self, viewed=set(self.viewed))
        self.viewed |= self.patient_ids | self.study_ids
        self.fields, self.searches, self.patient_ids, self.study_ids = [], [], set(), set()
        self.number_of_objects, self.minted, self.refusals = 0, Counter(), []
        return drained


P = TypeVar("P", bound=Hashable)
C = TypeVar("C")

ParentT = TypeVar("ParentT", bound=Hashable)

PagedKey = tuple[ParentT, P]
"""A parent and which part of its children is wanted."""


K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BatchLoader(Generic[K, V]):
    """Loads what the fields of one level ask for in one call, each key once.

    Strawberry's DataLoader loads in the next iteration of the event loop. The fields of a wide
    level ask in many of them, one turn after the other: this one waits for the last.

    Args:
        load: Loads values in the order of their keys.
        turns: Of the operation.
        jobs_of_studies: Reads jobs that the caller may know of.
        sources_of_studies: Finds what anonymised studies were made of.
    """

    def __init__(
        self, load: Callable[[list[K]], Awaitable[Sequence[V]]], turns: CooperativeExecution
    ) -> None:
        self._load = load
        self._turns = turns
        self._values: dict[K, asyncio.Future[V]] = {}
        self._wanted: dict[K, asyncio.Future[V]] = {}
        self._loading: set[asyncio.Task[None]] = set()

    def load(self, key: K) -> Awaitable[V]:
        """Return the value of a key, when it is loaded."""
        value = self._values.get(key)
        if value is None or value.cancelled():
            value = self._values[key] = asyncio.get_running_loop().create_future()
            if not self._wanted:
                task = asyncio.create_task(self._load_wanted())
                self._loading.add(task)
                task.add_done_callback(self._loading.discard)
            self._wanted[key] = value
        return value

    async def load_many(self, keys: Iterable[K]) -> list[V]:
        """Return the values of keys, in their order."""
        return await asyncio.gather(*(self.load(key) for key in keys))

    async def _load_wanted(self) -> None:
        await self._turns.wait_idle()
        wanted, self._wanted = self._wanted, {}
        # The operation may have ended since, by its time limit or with its connection.
        wanted = {key: value for key, value in wanted.items() if not value.cancelled()}
        if not wanted:
            return
        try:
            values = await self._load(list(wanted))
        except Exception as exc:  # noqa: BLE001  # raised to all waiting callers
            for value in wanted.values():
                if not value.done():
                    value.set_exception(exc)
            return
        for key, loaded in zip(wanted, values, strict=True):
            await self._turns.yield_to_loop()
            if not wanted[key].done():
                wanted[key].set_result(loaded)


class Loaders:
    """The loaders, named after what they load and by what.

    Args:
        tree: Reads from MongoDB.
        turns: Of the operation.
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
    """Load the parents that want the same part together; usually that is all of them."""

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
"""JSON of all headers of one operation: it is in memory as a whole before the answer goes out."""

_AFTERWARDS_SECONDS = 5.0
"""What follows a wait for somebody outside: reading from MongoDB and writing the answer."""

MAX_MEASUREMENTS = 20
"""Regions of frames that one operation measures: each decodes a frame."""

MAX_HEADERS = 500
"""Headers of one operation: of a series that was never opened, each is a file to read."""


@dataclass(slots=True, kw_only=True)
class Context:
    """The services, who is asking, and what is shared by the resolvers of an operation.

    Attributes:
        principal: None when the caller could not be identified.
        base_url: Absolute address that URLs in the answer start with, without a slash at its end.
        now: The clock, in epoch seconds.
        connection_params: Payload of a WebSocket's `connection_init`.
        identify: Identifies the caller again; None for requests: they end before a credential.
        turns: In which the operation shares the event loop with others.
        tree: Reads single objects, within the scope of the caller.
        loaders: One command of MongoDB per level of a tree, within the same scope.
        nodes_left: Objects that the operation may still answer.
        headers_left: Headers that it may still read from Orthanc.
        measurements_left: Regions of frames that it may still measure.
        headers_read: Instances whose headers were counted already, for attributes of frames.
        header_bytes_left: JSON of them that it may still answer.
        accesses: What the audit trail must know before the answer goes out.
        time_limit: Of the operation that runs; None: none.
    """

    runtime: Runtime
    principal: Principal | None
    base_url: str
    now: Callable[[], float] = time.time
    connection_params: object = None
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
        """Begin with nothing loaded and nothing counted."""
        self.reset()

    async def for_operation(self) -> "Context":
        """Return the context of one operation: those of a WebSocket run side by side."""
        context = replace(self, accesses=AccessLog())
        await context.identify_again()
        context.reset()
        return context

    async def start_event(self) -> None:
        """Forget what was loaded and counted: a new event of a subscription begins."""
        self.accesses.fields.clear()
        await self.identify_again()
        self.reset()

    async def identify_again(self) -> None:
        """Ask who it is: a WebSocket may stay open when its token is revoked or has expired."""
        if self.identify is not None:
            self.principal = await self.identify()

    @property
    def scope(self) -> Scope:
        """The studies that the caller may know of."""
        return self.principal.scope if self.principal is not None else NOTHING

    @property
    def grant(self) -> ShareGrant | None:
        """The share that URLs are minted under; None for callers with a credential of their own."""
        principal = self.principal
        if principal is None or principal.share_id is None or principal.expires_at is None:
            return None
        return ShareGrant(principal.share_id, int(principal.expires_at.timestamp()))

    def require_download(self) -> None:
        """Let those pass who may take archives and files, before a URL of one is minted.

        Raises:
            Forbidden: The share is for looking at pictures alone.
        """
        if self.principal is not None and not self.principal.may_download:
            raise Forbidden("This share does not allow downloads.")

    def reset(self) -> None:
        """Begin with nothing loaded and nothing counted, within the scope of who it is now."""
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
        """Allow the operation this time from now on: it waits for somebody outside.

        Args:
            seconds: Longest wait; a moment for what follows is added.
        """
        limit = self.time_limit
        if limit is not None and (ends_at := limit.when()) is not None:
            now = asyncio.get_running_loop().time()
            limit.reschedule(max(ends_at, now + seconds + _AFTERWARDS_SECONDS))

    def show(self, documents: Sequence[Mapping[str, Any]], level: Level) -> None:
        """Count documents that the answer begins with, and log their patients and studies.

        Args:
            documents: Stored documents of one level.
            level: Which.

        Raises:
            LimitExceeded: The answer grows too large.
        """
        self.count_nodes(len(documents))
        self.accesses.add(documents, level)

    def count_nodes(self, count: int) -> None:
        """Count objects of the answer, before they are resolved.

        Args:
            count: How many; less than 0 when fewer came than were counted.

        Raises:
            LimitExceeded: The answer grows too large.
        """
        self.nodes_left -= count
        self.accesses.number_of_objects += count
        if self.nodes_left < 0:
            raise LimitExceeded(
                f"The answer has more than {self.runtime.settings.query_max_nodes} objects. "
                "Ask for fewer with `first`, in several queries."
            )

    def allow_nodes(self, count: int) -> None:
        """Let the answer have more objects, where other limits bound their number already."""
        self.nodes_left += count

    def spend_header(self) -> None:
        """Count a header, before it is read.

        Raises:
            LimitExceeded: The operation asks for too many.
        """
        self.headers_left -= 1
        if self.headers_left < 0:
            raise LimitExceeded(
                f"A query answers `tags` of at most {MAX_HEADERS} instances. Ask for fewer with "
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
                f"A query answers `statistics` of at most {MAX_MEASUREMENTS} regions."
            )

    def spend_header_bytes(self, json_bytes: int) -> None:
        """Count the size of a header, when it was read.

        Raises:
            LimitExceeded: All headers of the operation are too large together.
        """
        self.header_bytes_left -= json_bytes
        if self.header_bytes_left < 0:
            raise LimitExceeded(
                f"The `tags` of a query have at most {MAX_HEADER_BYTES} bytes together. Ask for "
                "fewer instances in one query."
            )


Info: TypeAlias = strawberry.Info[Context, None]
"""`info` of resolvers."""
