"""Opens MongoDB, translates its errors, and counts documents."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import pymongo.lock
from beanie import init_beanie
from bson.errors import InvalidDocument, InvalidStringData
from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import (
    ConnectionFailure,
    DocumentTooLarge,
    ExecutionTimeout,
    NotPrimaryError,
    OperationFailure,
)
from pymongo.monitoring import (
    CommandFailedEvent,
    CommandListener,
    CommandStartedEvent,
    CommandSucceededEvent,
)
from pymongo.read_preferences import Primary, PrimaryPreferred

from models import DOCUMENTS
from services.errors import DatabaseUnavailable, RecordRefused
from services.observability.metrics import MONGODB_SECONDS
from services.observability.tracing import TRACING

_Awaited = TypeVar("_Awaited")


async def _wait_for(awaitable: Awaitable[_Awaited], timeout: float | None) -> _Awaited:  # noqa: ASYNC109  # of `asyncio`
    """Wait in the same task, as `asyncio.wait_for` does since Python 3.12.

    Before, it makes a task of its own. PyMongo waits so for a server. If the caller is cancelled in
    the moment in which that task takes the lock of the topology again, the lock is never released,
    and every command of the process waits for ever.
    """
    async with asyncio.timeout(timeout):
        return await awaitable


if sys.version_info < (3, 12):
    pymongo.lock.wait_for = _wait_for  # type: ignore[assignment,attr-defined]

_SERVER_SELECTION_MS = 3_000
"""Longest wait for a server: a replica set elects a primary in less time."""

_HEARTBEAT_MS = 2_000
"""A MongoDB that hangs is detected after this and the time of a connection, which is before the
time limit of a query, so that the caller gets the reason."""

_SOCKET_MS = 60_000
"""Longer than every `maxTimeMS` and every wait of a change stream: only for dead connections."""

_QUEUE_MS = 10_000
"""Longest wait for a connection. Without a limit a command, and the shutdown of the server, would
wait forever if PyMongo lost count of its connections."""

_REFUSED = "The database could not perform this. Try again; the server's log has the reason."

_TOO_LARGE = frozenset({10334, 17419, 17420})
"""MongoDB's codes of documents beyond 16 MB: sent, after an update, after an upsert."""

_BREAKS_RULES = frozenset({121, 171})
"""MongoDB's codes of documents that an administrator's rules or an index forbid."""

_CAN_NOT_BE_ENCODED = (InvalidDocument, InvalidStringData, OverflowError, UnicodeEncodeError)
"""The exceptions of PyMongo, and of Python, for values that BSON can't represent."""

_LOST_LOCK = "un-acquired lock"
"""Part of the message of asyncio's conditions if another task has released their lock."""

_NOT_TAKEN = "This can't be indexed: the database does not accept its record."


@contextmanager
def translated_database_faults() -> Iterator[None]:
    """Translate PyMongo's errors into ours.

    The detail has no message of MongoDB, which may quote documents.

    Raises:
        DatabaseUnavailable: MongoDB does not answer, is too slow, or refuses the command.
        RecordRefused: A document is too large for MongoDB, or has a value that BSON lacks.
    """
    try:
        yield
    except DocumentTooLarge as exc:
        raise RecordRefused(detail=type(exc).__name__) from exc
    except _CAN_NOT_BE_ENCODED as exc:
        raise RecordRefused(_NOT_TAKEN, detail=type(exc).__name__) from exc
    except OperationFailure as exc:
        detail = f"{type(exc).__name__}, code {exc.code}"
        if _TOO_LARGE & _codes(exc):
            raise RecordRefused(detail=detail) from exc
        raise DatabaseUnavailable(_REFUSED, detail=detail) from exc
    except ConnectionFailure as exc:
        raise DatabaseUnavailable(detail=type(exc).__name__) from exc
    except RuntimeError as exc:
        # PyMongo 4.20 raises it at a fail-over (`topology.select_servers`, `_async_cond_wait`).
        if _LOST_LOCK not in str(exc):
            raise
        raise DatabaseUnavailable(detail=type(exc).__name__) from exc


@contextmanager
def translated_index_faults() -> Iterator[None]:
    """Translate PyMongo's errors into ours where records of the index are written.

    Raises:
        DatabaseUnavailable: As `translated_database_faults`.
        RecordRefused: Likewise, or a rule of the collection forbids a record.
    """
    with translated_database_faults():
        try:
            yield
        except OperationFailure as exc:
            if _BREAKS_RULES & _codes(exc):
                detail = f"{type(exc).__name__}, code {exc.code}"
                raise RecordRefused(_NOT_TAKEN, detail=detail) from exc
            raise


def _codes(failure: OperationFailure) -> set[int | None]:
    """Return the code of a command, and those of its writes if it is a bulk write."""
    writes = (failure.details or {}).get("writeErrors", [])
    return {failure.code, *(write.get("code") for write in writes)}


@asynccontextmanager
async def open_database(
    url: str, name: str, *, observe: bool = False
) -> AsyncIterator[AsyncDatabase[dict[str, Any]]]:
    """Connect, bind the document classes and create their indexes.

    Datetimes are read with the zone UTC.

    Args:
        url: Connection string.
        name: Of the database.
        observe: Time every command, for metrics and traces.

    Raises:
        DatabaseUnavailable: MongoDB does not answer or does not accept the credentials.
    """
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
        url,
        tz_aware=True,
        appname="orthanc-graphql",
        connectTimeoutMS=_SERVER_SELECTION_MS,
        event_listeners=[_CommandObserver()] if observe else [],
        heartbeatFrequencyMS=_HEARTBEAT_MS,
        serverSelectionTimeoutMS=_SERVER_SELECTION_MS,
        socketTimeoutMS=_SOCKET_MS,
        waitQueueTimeoutMS=_QUEUE_MS,
    )
    async with client:
        # Writes depend on reads, and only the primary is up to date. See `readable`.
        database = client.get_database(name, read_preference=Primary())
        with translated_database_faults():
            await init_beanie(database=database, document_models=list(DOCUMENTS))
        yield database


def elected_primary(client: AsyncMongoClient[dict[str, Any]]) -> object:
    """Return the election of the present primary; None while there is none, or behind a mongos.

    It changes at each election, also after a crash. PyMongo knows it without a request.
    """
    servers = client.topology_description.server_descriptions()
    primaries = (server for server in servers.values() if server.is_writable)
    return next((primary.election_id for primary in primaries), None)


_Stored = TypeVar("_Stored", bound=Mapping[str, Any])


def readable(collection: AsyncCollection[_Stored]) -> AsyncCollection[_Stored]:
    """Return a collection for reads whose answer may be a second old: lists, trees and pictures.

    While there is no primary, a secondary answers them. Reads on which writes depend go to the
    primary.
    """
    return collection.with_options(read_preference=PrimaryPreferred())


class CollectionCount:
    """The number of documents of a collection, from MongoDB's own count.

    The cost of that count does not depend on the number. After a crash of MongoDB it is wrong by a
    constant. A crash is followed by an election, so the documents are counted one by one once after
    each election. If elections are not visible (a standalone server, a sharded cluster, a set
    without a primary), they are counted each time.

    Args:
        collection: What to count, on the primary.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        collection: AsyncCollection[dict[str, Any]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._collection = collection
        self._clock = clock
        self._correction: _Correction | None = None

    async def read(self, *, max_milliseconds: int | None = None) -> int:
        """Return the number of documents; if counting takes too long, MongoDB's own count.

        Args:
            max_milliseconds: Longest time of each of at most three commands.

        Raises:
            DatabaseUnavailable: MongoDB does not answer in time.
        """
        election = elected_primary(self._collection.database.client)
        if election is None:
            return await self._count_one_by_one(readable(self._collection), max_milliseconds)
        try:
            return await self._read_from_primary(election, max_milliseconds)
        except DatabaseUnavailable as exc:
            # It stepped down a moment ago, which PyMongo had not noticed yet.
            if not isinstance(exc.__cause__, NotPrimaryError):
                raise
            return await self._count_one_by_one(readable(self._collection), max_milliseconds)

    async def _read_from_primary(self, election: object, max_milliseconds: int | None) -> int:
        estimate = await self.estimate(max_milliseconds=max_milliseconds)
        known = self._correction
        if known is not None and known.election == election and self._clock() < known.until:
            return estimate + known.difference
        try:
            counted = await self._count_one_by_one(self._collection, _COUNT_MS)
        except DatabaseUnavailable as exc:
            if not isinstance(exc.__cause__, ExecutionTimeout):
                raise
            self._correction = _Correction(election, 0, self._clock() + _UNKNOWN_SECONDS)
            return estimate
        before, after = (
            counted - estimate,
            counted - await self.estimate(max_milliseconds=max_milliseconds),
        )
        # If documents were written meanwhile, they may be the difference.
        difference = 0 if min(before, after) <= 0 <= max(before, after) else after
        until = float("inf") if before == after else self._clock() + _UNSURE_SECONDS
        self._correction = _Correction(election, difference, until)
        return counted

    async def estimate(self, *, max_milliseconds: int | None = None) -> int:
        """Return MongoDB's own count, which changes with every write.

        Raises:
            DatabaseUnavailable: MongoDB does not answer in time.
        """
        with translated_database_faults():
            return int(await self._collection.estimated_document_count(**_limit(max_milliseconds)))

    async def _count_one_by_one(
        self, collection: AsyncCollection[dict[str, Any]], max_milliseconds: int | None
    ) -> int:
        limit = _limit(max_milliseconds)
        with translated_database_faults():
            return int(await collection.count_documents({}, hint="_id_", **limit))


_COUNT_MS = 3_000
"""Counting one by one takes half a second for a million documents."""

_UNSURE_SECONDS = 60.0
_UNKNOWN_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class _Correction:
    """The number to add to MongoDB's own count, until a time of the clock."""

    election: object
    difference: int
    until: float


def _limit(milliseconds: int | None) -> dict[str, Any]:
    return {} if milliseconds is None else {"maxTimeMS": milliseconds}


class _CommandObserver(CommandListener):
    """Times commands by their names, and shows them in the traces of operations."""

    def __init__(self) -> None:
        self._spans: dict[int, Any] = {}

    def started(self, event: CommandStartedEvent) -> None:
        span = TRACING.begin_command(event.command_name)
        if span is not None:
            self._spans[event.request_id] = span

    def succeeded(self, event: CommandSucceededEvent) -> None:
        self._end(event, None)

    def failed(self, event: CommandFailedEvent) -> None:
        self._end(event, str(event.failure.get("codeName") or "error"))

    def _end(self, event: CommandSucceededEvent | CommandFailedEvent, error: str | None) -> None:
        seconds = event.duration_micros / 1_000_000
        MONGODB_SECONDS.labels(event.command_name).observe(seconds)
        TRACING.end_command(self._spans.pop(event.request_id, None), error=error)


CLOCK_TOLERANCE_SECONDS = 10.0
"""Signed URLs allow for 30 s of difference between two servers."""


def describe_clock_difference(database_time: datetime, now: datetime) -> str | None:
    """Describe the difference of this machine's clock from MongoDB's; None if it is small.

    Two servers whose clocks differ refuse each other's signed URLs, and both have the same
    MongoDB to compare with.

    Args:
        database_time: `localTime` of MongoDB's answer to `hello`, in UTC.
        now: The time of this machine, with time zone.
    """
    if database_time.tzinfo is None:
        database_time = database_time.replace(tzinfo=UTC)
    seconds = (now - database_time).total_seconds()
    if abs(seconds) <= CLOCK_TOLERANCE_SECONDS:
        return None
    direction = "ahead of" if seconds > 0 else "behind"
    return (
        f"The clock of this machine is {abs(seconds):.0f} s {direction} MongoDB's: signed URLs of "
        "other servers may be refused. Synchronize the clocks (NTP) of all machines."
    )
