"""Several Orthancs with the same content: which one answers a read."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.errors import OrthancError, OrthancNotFound, OrthancTimedOut, OrthancUnavailable
from services.orthanc.transport import CircuitBreaker

_Connection = TypeVar("_Connection")
_Other = TypeVar("_Other")


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[_Connection]):
    """One Orthanc.

    Attributes:
        connection: How to ask it.
        breaker: Refuses calls for a moment while it is away; None asks every time.
    """

    connection: _Connection
    breaker: CircuitBreaker | None = None

    @property
    def is_refusing(self) -> bool:
        """Whether calls are refused for a moment."""
        return self.breaker is not None and self.breaker.is_refusing

    def guarded(self) -> AbstractContextManager[None]:
        """Count what one call finds out; see `CircuitBreaker.guarded`."""
        return nullcontext() if self.breaker is None else self.breaker.guarded()

    def record(self, fault: OrthancUnavailable) -> None:
        """Count a connection that broke after its answer had begun."""
        if self.breaker is not None:
            self.breaker.record(fault)


class Endpoints(Generic[_Connection]):
    """All Orthancs that answer a read.

    Args:
        main: ORTHANC_URL. It also takes the writes, so it answers reads only without `readers`, and
            when these are away.
        readers: ORTHANC_READ_URLS.
    """

    def __init__(
        self, main: Endpoint[_Connection], readers: Sequence[Endpoint[_Connection]] = ()
    ) -> None:
        self._main = main
        self._readers = list(enumerate(readers))

    def __iter__(self) -> Iterator[_Connection]:
        """Yield the connections of all."""
        yield self._main.connection
        for _, reader in self._readers:
            yield reader.connection

    def mapped(self, change: Callable[[_Connection], _Other]) -> "Endpoints[_Other]":
        """Return the same with other connections."""
        main, *readers = (
            Endpoint(change(endpoint.connection), endpoint.breaker)
            for endpoint in (self._main, *(reader for _, reader in self._readers))
        )
        return Endpoints(main, readers)

    def ordered(self, key: str) -> Iterator[Endpoint[_Connection]]:
        """Yield all of them, the preferred one first.

        Orthanc reads and parses a file once for all frames that are asked for at the same time, so
        the reads of one instance go to one Orthanc. When one is away, its instances are divided
        among the others, and theirs stay (rendezvous hashing).

        Args:
            key: Identifier of the instance, or of the study or series of an archive.
        """
        by_preference = sorted(self._readers, key=lambda reader: _weight(key, reader[0]))
        endpoints = [endpoint for _, endpoint in by_preference] + [self._main]
        yield from sorted(endpoints, key=lambda endpoint: endpoint.is_refusing)

    def may_ask_another(self, asked: Endpoint[_Connection], fault: OrthancError) -> bool:
        """Return whether another Orthanc may have the answer.

        One that takes too long would do so again. A reader that does not have a file yet, or not
        any more, is behind the others: only `main` knows what is gone.

        Args:
            asked: Which one answered.
            fault: What it answered.
        """
        if isinstance(fault, OrthancNotFound):
            return asked is not self._main
        return isinstance(fault, OrthancUnavailable) and not isinstance(fault, OrthancTimedOut)


def _weight(key: str, number: int) -> bytes:
    # No sum of zlib: those of two numbers differ by the same bits for all keys.
    return hashlib.blake2b(f"{key} {number}".encode(), digest_size=8).digest()
