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
"""Time for requests that clients sent on open connections before they noticed the shutdown."""

_TICK_SECONDS = 0.05


class GracefulServer(uvicorn.Server):
    """uvicorn's server with a shutdown in four steps.

    1. `/readyz` answers 503, so that load balancers choose other processes. Requests are still
       served, and every response closes its connection.
    2. The listener closes. Open connections get a second for requests that are on their way.
    3. Running requests may complete within `timeout_graceful_shutdown`.
    4. Remaining requests are cancelled.

    uvicorn itself starts with the third step and closes idle connections at once. It also raises
    SIGTERM again before its caller has closed anything, which would lose audit records.

    Args:
        config: Of the server.
        readiness: Of this process.
        delay_seconds: Duration of the first step after SIGTERM; Ctrl-C skips it.
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
        """Accept no further connections of a socket; open connections are still served."""
        server = self._more.pop(key, None)
        if server is not None:
            self.servers.remove(server)
            server.close()

    def drain(self) -> None:
        """Report not ready, so that load balancers send no requests; serve those that arrive."""
        self._readiness.is_stopping = True

    def stop(self) -> None:
        """Shut down after the delay; a second call shuts down at once."""
        if self._readiness.is_stopping or not self._delay_seconds:
            self._end()
        else:
            _log.info("the server stops in %g s (SHUTDOWN_DELAY_SECONDS)", self._delay_seconds)
            asyncio.get_running_loop().call_later(self._delay_seconds, self._end)
        self.drain()

    def interrupt(self) -> None:
        """Shut down at once; a second call cancels running requests."""
        self.force_exit = self.should_exit
        self.drain()
        self._end()

    def _end(self) -> None:
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle SIGTERM and SIGINT in the event loop, and restore the handlers afterwards."""
        loop = asyncio.get_running_loop()
        of_interrupt = signal.getsignal(signal.SIGINT)
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        loop.add_signal_handler(signal.SIGINT, self.interrupt)
        # Of a terminal that is closed.
        loop.add_signal_handler(signal.SIGHUP, self.stop)
        try:
            yield
        finally:
            # Services are closed in any case; further signals must not interrupt that.
            loop.add_signal_handler(signal.SIGTERM, _ignore)
            loop.add_signal_handler(signal.SIGHUP, _ignore)
            loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, of_interrupt)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listener, then each connection when its requests are answered."""
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
