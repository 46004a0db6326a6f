"""The end of the HTTP server, in steps that lose no request."""

import asyncio
import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import uvicorn

from services.health.readiness import Readiness

_log = logging.getLogger(__name__)

_KEPT_SECONDS = 1.0
"""A kept connection may carry a request that its client sent before it could know of the end."""

_TICK_SECONDS = 0.05


class GracefulServer(uvicorn.Server):
    """uvicorn's server, which ends in four steps.

    1. `/readyz` answers 503 while everything is served, and every answer closes its connection:
       balancers turn to other processes.
    2. The listener closes. Connections that are kept get a second for a request under way.
    3. Running requests end, for as long as `timeout_graceful_shutdown`.
    4. What still runs is cancelled.

    uvicorn alone begins with the third step and closes kept connections at once. It also raises
    SIGTERM again before its caller has closed anything, which would lose audit records.

    Args:
        config: Of the server.
        readiness: Of this process.
        delay_seconds: Length of the first step after SIGTERM; Ctrl-C passes it by.
    """

    def __init__(
        self, config: uvicorn.Config, readiness: Readiness, *, delay_seconds: float
    ) -> None:
        super().__init__(config)
        self._readiness = readiness
        self._delay_seconds = delay_seconds
        self._more: dict[int, asyncio.base_events.Server] = {}

    async def listen_to(self, listener: socket.socket, key: int) -> None:
        """Serve the connections of another socket as well.

        Args:
            listener: Bound; closed by this server.
            key: For `leave`.
        """
        if self.should_exit or key in self._more:
            listener.close()
            return
        protocol = partial(  # as `uvicorn.Server.startup` makes it
            self.config.http_protocol_class,
            config=self.config,  # type: ignore[call-arg]
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        loop = asyncio.get_running_loop()
        server = await loop.create_server(protocol, sock=listener, backlog=self.config.backlog)
        self._more[key] = server
        self.servers.append(server)

    def leave(self, key: int) -> None:
        """Accept no further connections of such a socket; those that are open go on."""
        server = self._more.pop(key, None)
        if server is not None:
            self.servers.remove(server)
            server.close()

    def drain(self) -> None:
        """Ask balancers for no further requests; serve what comes."""
        self._readiness.is_stopping = True

    def stop(self) -> None:
        """End after the delay; a second call ends at once."""
        if self._readiness.is_stopping or not self._delay_seconds:
            self._end()
        else:
            _log.info("the server stops in %g s (SHUTDOWN_DELAY_SECONDS)", self._delay_seconds)
            asyncio.get_running_loop().call_later(self._delay_seconds, self._end)
        self.drain()

    def interrupt(self) -> None:
        """End at once; a second call cuts what runs."""
        self.force_exit = self.should_exit
        self.drain()
        self._end()

    def _end(self) -> None:
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle SIGTERM and SIGINT in the event loop; the caller's handlers come back after it."""
        loop = asyncio.get_running_loop()
        of_interrupt = signal.getsignal(signal.SIGINT)
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        loop.add_signal_handler(signal.SIGINT, self.interrupt)
        # Of a terminal that is closed.
        loop.add_signal_handler(signal.SIGHUP, self.stop)
        try:
            yield
        finally:
            # What is open is closed in any case, and one who stops it twice must wait for that.
            loop.add_signal_handler(signal.SIGTERM, _ignore)
            loop.add_signal_handler(signal.SIGHUP, _ignore)
            loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, of_interrupt)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listener, then each connection when it has served what it carries."""
        self.drain()
        for server in self.servers:
            server.close()
        ticks = round(_KEPT_SECONDS / _TICK_SECONDS)
        while ticks and self.server_state.connections and not self.force_exit:
            ticks -= 1
            await asyncio.sleep(_TICK_SECONDS)
        await super().shutdown(sockets)


def _ignore() -> None:
    pass
