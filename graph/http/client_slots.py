"""Limits what one client may use at the same time: WebSockets, downloads."""

import asyncio
import ipaddress
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import lru_cache

from starlette.types import Scope

from services.errors import TooManyRequests

_IPV6_PREFIX = 64
"""Length of an IPv6 prefix that counts as one client: a customer has at least this (RFC 6177)."""


class ClientSlots:
    """Counts what each client uses; a client is an IPv4 address, or an IPv6 network of 64 bits.

    Args:
        what: What is counted, in the plural, for the message.
        limit: How many one client may use at once.
        setting: Name of the setting that holds the limit.
    """

    def __init__(self, what: str, limit: int, *, setting: str) -> None:
        self._what = what
        self._limit = limit
        self._setting = setting
        self._held: Counter[str] = Counter()
        self._freed = asyncio.Event()

    @contextmanager
    def hold(self, scope: Scope) -> Iterator[None]:
        """Occupy one slot for as long as the context is open.

        Args:
            scope: Of the request; behind TRUSTED_PROXIES it names the client, else the proxy.

        Raises:
            TooManyRequests: All slots of the client are occupied.
        """
        client = _client_of(scope)
        if self._held[client] >= self._limit:
            raise TooManyRequests(
                f"At most {self._limit} {self._what} at once for one client ({self._setting})."
            )
        self._held[client] += 1
        try:
            yield
        finally:
            self._held[client] -= 1
            if not self._held[client]:
                del self._held[client]
            self._freed.set()
            self._freed = asyncio.Event()

    @asynccontextmanager
    async def turn(self, scope: Scope, *, seconds: float) -> AsyncIterator[None]:
        """Hold one as `hold` does, as soon as the client has one left.

        Args:
            scope: Of the request.
            seconds: Longest wait.

        Raises:
            TooManyRequests: The client still holds as many as it may.
        """
        client = _client_of(scope)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._held[client] >= self._limit:
                    await self._freed.wait()
        with self.hold(scope):
            yield


def _client_of(scope: Scope) -> str:
    client = scope.get("client")
    return "" if client is None else _network_of(client[0])


@lru_cache(maxsize=1024)
def _network_of(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:  # noqa: PLR2004  # IPv4
        return address
    return str(ipaddress.ip_network((parsed, _IPV6_PREFIX), strict=False))
