"""Worker processes of one server: supervised, restarted one after another, on one port.

The parent owns the embedded stores and a listening socket for each worker. The kernel distributes
new connections among these sockets (SO_REUSEPORT). They stay open while a worker is replaced, so
that no connection is reset. When a worker dies, the others also serve its socket until the next
one is ready.

Parent and worker exchange lines over a pair of sockets. The parent sends a `Handover` as JSON, then
`adopt N` and `release N` for the socket of another worker, and `drain`; the worker sends `alive`
every few seconds, and `ready` when it serves. The end of the stream shows that the other process
has ended.
"""

import asyncio
import json
import logging
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Protocol, Self

from services.connections import Connections, WorkerGroup
from services.embedded.child import restart_delay
from services.errors import Error
from services.tasks import cancel_and_wait, wait_for_all

_log = logging.getLogger(__name__)

_START_SECONDS = 120.0
"""Longest start: a worker may wait for MongoDB and create indexes."""

_ALIVE_SECONDS = 5.0
_HANGING_SECONDS = 60.0
"""A worker whose event loop is blocked for so long is killed and replaced."""

_SHORT_LIFE_SECONDS = 10.0
"""If a worker dies sooner, its start probably failed, and the next one would fail as well."""

_CLOSE_SECONDS = 20.0
"""Time after its requests, in which a worker writes audit records and closes everything."""


class WorkerFailed(Error):
    """A worker stopped at its start."""

    code = "WORKER_FAILED"


@dataclass(frozen=True, slots=True)
class Handover:
    """The data that a worker gets from its parent.

    Attributes:
        number: Its place among the workers, 0-based.
        listeners: Descriptors of the listening sockets of all places.
        metrics: Descriptor of the socket for its metrics; None: they are off.
        address: Where the server can be reached on this machine.
        host: The option `--host`.
        workers: How many there are.
        connections: The fields of `Connections`.
        events_secret: As in `WorkerGroup`.
    """

    number: int
    listeners: list[int]
    metrics: int | None
    address: str
    host: str
    workers: int
    connections: dict[str, str | None]
    events_secret: str

    @property
    def descriptors(self) -> list[int]:
        """The descriptors that the worker inherits."""
        return [*self.listeners, *([] if self.metrics is None else [self.metrics])]

    @property
    def is_first(self) -> bool:
        """Whether this worker fills empty stores."""
        return self.number == 0

    @property
    def group(self) -> WorkerGroup:
        """What this worker has in common with the others."""
        return WorkerGroup(
            connections=Connections(**self.connections),  # type: ignore[arg-type]  # as it was sent
            events_secret=self.events_secret,
            workers=self.workers,
        )

    def to_line(self) -> bytes:
        """Return it as one line of JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """Read what `to_line` wrote."""
        return cls(**json.loads(line))


class Obedient(Protocol):
    """The commands of a parent to a worker."""

    def drain(self) -> None:
        """Ask balancers for no further requests."""
        ...

    def stop(self) -> None:
        """End."""
        ...

    async def adopt(self, number: int) -> None:
        """Serve the socket of another place as well."""
        ...

    def release(self, number: int) -> None:
        """Leave the socket of that place to its worker again."""
        ...


class Channel:
    """A worker's end of the line to its parent.

    Args:
        reader: From the parent.
        writer: To the parent.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, descriptor: int) -> Self:
        """Open the end that the parent left in this descriptor."""
        return cls(*await asyncio.open_unix_connection(sock=socket.socket(fileno=descriptor)))

    async def handover(self) -> Handover:
        """Return the first line of the parent."""
        return Handover.from_line(await self._reader.readline())

    def ready(self) -> None:
        """Tell the parent that this worker serves."""
        self._send(b"ready\n")

    async def follow(self, worker: "Obedient") -> None:
        """Send signs of life, and follow the commands of the parent, until it ends.

        Args:
            worker: Performs the commands.
        """
        beating = asyncio.create_task(self._beat())
        try:
            while line := await self._reader.readline():
                match line.split():
                    case [b"drain"]:
                        worker.drain()
                    case [b"adopt", number]:
                        await worker.adopt(int(number))
                    case [b"release", number]:
                        worker.release(int(number))
            _log.error("the parent of this worker is gone")
            worker.stop()
        finally:
            await cancel_and_wait(beating)

    async def _beat(self) -> None:
        while True:
            self._send(b"alive\n")
            await asyncio.sleep(_ALIVE_SECONDS)

    def _send(self, line: bytes) -> None:
        # The parent may have ended, which `follow` notices.
        with suppress(OSError):
            self._writer.write(line)

    def close(self) -> None:
        """Close this end."""
        self._writer.close()


class Worker:
    """A running worker, as its parent sees it. Make one with `start_worker`."""

    def __init__(
        self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._ready = asyncio.Event()
        self._listening = asyncio.create_task(self._listen(), name=f"worker {process.pid}")
        self.started_at = asyncio.get_running_loop().time()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def ready(self) -> None:
        """Wait until it serves.

        Raises:
            WorkerFailed: It ended, or took too long; its log has the reason.
        """
        ready = asyncio.ensure_future(self._ready.wait())
        ended = asyncio.ensure_future(self._process.wait())
        try:
            await asyncio.wait(
                {ready, ended}, timeout=_START_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            await cancel_and_wait(ready, ended)
        if not self._ready.is_set():
            raise WorkerFailed("A worker stopped at its start; the log above has the reason.")

    async def ended(self) -> int:
        """Wait for its end; its exit code, negative for a signal."""
        code = await self._process.wait()
        await cancel_and_wait(self._listening)
        self._writer.close()
        return code

    def tell(self, line: str) -> None:
        """Send it a line: `drain`, `adopt N` or `release N`."""
        with suppress(OSError):
            self._writer.write(f"{line}\n".encode())

    async def stop(self, *, within_seconds: float) -> None:
        """End it; kill it if its requests take too long."""
        try:
            with suppress(ProcessLookupError):
                self._process.terminate()
            async with asyncio.timeout(within_seconds):
                await self._process.wait()
        except TimeoutError:
            _log.error("worker %d did not end in %g s and is killed", self.pid, within_seconds)
        finally:
            self.kill()
            await self.ended()

    def kill(self) -> None:
        """End it at once."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def _listen(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_HANGING_SECONDS if self._ready.is_set() else None):
                    line = await self._reader.readline()
            except TimeoutError:
                _log.error("worker %d hangs and is killed", self.pid)
                self.kill()
                return
            if not line:
                return
            if line == b"ready\n":
                self._ready.set()


async def start_worker(arguments: Sequence[str], handover: Handover) -> Worker:
    """Start a process that becomes a worker.

    Args:
        arguments: Of the command `serve`.
        handover: What it needs.
    """
    own, others = socket.socketpair()
    with others:
        process = await asyncio.create_subprocess_exec(
            # `-P`: no module of the current folder can take the place of ours.
            *(sys.executable, "-P", "-m", "graph.cli", "serve", *arguments),
            *("--worker", str(others.fileno())),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(others.fileno(), *handover.descriptors),
            # A Ctrl-C in the terminal goes to its process group: the parent ends its workers.
            start_new_session=True,
        )
    reader, writer = await asyncio.open_unix_connection(sock=own)
    writer.write(handover.to_line())
    return Worker(process, reader, writer)


Start = Callable[[], Awaitable[Worker]]


class WorkerSlot:
    """The place of one worker, which is started again whenever it ends.

    Args:
        start: Starts a worker for this place.
        on_change: Called with False when the worker has ended, with True when the next one is
            ready.
        stop_seconds: A worker that does not end within this time is killed.
    """

    def __init__(
        self, start: Start, on_change: Callable[[bool], None], *, stop_seconds: float
    ) -> None:
        self._start = start
        self._on_change = on_change
        self._stop_seconds = stop_seconds
        self._worker: Worker | None = None
        self._changing = asyncio.Lock()

    @property
    def worker(self) -> Worker | None:
        """The current worker; None before the first and between two."""
        return self._worker

    async def open(self) -> None:
        """Start the first worker.

        Raises:
            WorkerFailed: It stopped at its start.
        """
        self._worker = await self._started()

    async def keep(self) -> None:
        """Start another worker whenever one ends, until it is cancelled."""
        short_lives = 0
        while True:
            if (worker := self._worker) is not None:
                code = await worker.ended()
            async with self._changing:
                if self._worker is not worker:
                    continue  # replaced
                if worker is not None:
                    _log.error("worker %d ended (%d); another one is started", worker.pid, code)
                    lived = asyncio.get_running_loop().time() - worker.started_at
                    short_lives = short_lives + 1 if lived < _SHORT_LIFE_SECONDS else 0
                    self._worker = None
                    self._on_change(False)  # noqa: FBT003  # the protocol's only argument
                await asyncio.sleep(restart_delay(short_lives))
                try:
                    self._worker = await self._started()
                except WorkerFailed:
                    short_lives += 1
                else:
                    self._on_change(True)  # noqa: FBT003  # the protocol's only argument

    async def replace(self) -> None:
        """Start another worker and, when it serves, end the one before.

        Raises:
            WorkerFailed: The new worker stopped at its start; the former one goes on.
        """
        async with self._changing:
            before, self._worker = self._worker, await self._started()
        if before is not None:
            await before.stop(within_seconds=self._stop_seconds)

    async def close(self) -> None:
        """End the worker."""
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.stop(within_seconds=self._stop_seconds)

    async def _started(self) -> Worker:
        worker = await self._start()
        try:
            await worker.ready()
        except BaseException:
            worker.kill()
            await worker.ended()
            raise
        return worker


class WorkerServer:
    """All workers of a server.

    Args:
        starts: Starts a worker, for each place.
        delay_seconds: SHUTDOWN_DELAY_SECONDS.
        shutdown_seconds: SHUTDOWN_SECONDS.
    """

    def __init__(
        self, starts: Sequence[Start], *, delay_seconds: float, shutdown_seconds: float
    ) -> None:
        self._delay_seconds = delay_seconds
        self._slots = [
            WorkerSlot(
                start, partial(self._cover, number), stop_seconds=shutdown_seconds + _CLOSE_SECONDS
            )
            for number, start in enumerate(starts)
        ]
        self._empty: set[int] = set()
        self._has_started = False
        self._stop = asyncio.Event()
        self._end = asyncio.Event()
        self._restarting: asyncio.Task[None] | None = None

    async def run(self, announce: Callable[[], None]) -> None:
        """Serve until SIGTERM or Ctrl-C; SIGHUP restarts the workers one after another.

        Args:
            announce: Called when all workers serve.

        Raises:
            WorkerFailed: One stopped at its start.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        async with AsyncExitStack() as stack:
            # The first one creates indexes and fills empty stores, alone.
            for slots in (self._slots[:1], self._slots[1:]):
                for slot in slots:
                    stack.push_async_callback(slot.close)
                await wait_for_all(slot.open() for slot in slots)
            loop.add_signal_handler(signal.SIGTERM, self._terminate)
            loop.add_signal_handler(signal.SIGINT, self._interrupt)
            self._has_started = True
            keeping = [asyncio.create_task(slot.keep()) for slot in self._slots]
            try:
                announce()
                await self._stop.wait()
                await self._drain()
            finally:
                await cancel_and_wait(*keeping, *filter(None, [self._restarting]))
            await asyncio.gather(*(slot.close() for slot in self._slots))

    def _terminate(self) -> None:
        if self._stop.is_set() or not self._delay_seconds:
            self._end.set()
        self._stop.set()

    def _interrupt(self) -> None:
        self._stop.set()
        self._end.set()

    def _hang_up(self) -> None:
        if self._has_started and (self._restarting is None or self._restarting.done()):
            self._restarting = asyncio.create_task(self._restart(), name="restart workers")

    def _cover(self, number: int, is_taken: bool) -> None:  # noqa: FBT001  # see WorkerSlot
        """Let the workers of other places serve the socket of an empty place."""
        (self._empty.discard if is_taken else self._empty.add)(number)
        for slot in self._slots:
            if slot.worker is not None:
                slot.worker.tell(f"{'release' if is_taken else 'adopt'} {number}")
        taken = self._slots[number].worker
        if taken is not None:
            for other in self._empty:
                taken.tell(f"adopt {other}")

    async def _drain(self) -> None:
        for slot in self._slots:
            if slot.worker is not None:
                slot.worker.tell("drain")
        with suppress(TimeoutError):
            async with asyncio.timeout(self._delay_seconds):
                await self._end.wait()

    async def _restart(self) -> None:
        _log.info("the workers are restarted one after another")
        for slot in self._slots:
            try:
                await slot.replace()
            except WorkerFailed:
                _log.error("the restart is given up: a new worker stopped at its start")
                return
        _log.info("all workers are restarted")


@asynccontextmanager
async def followed(channel: Channel, worker: Obedient) -> AsyncIterator[None]:
    """Follow the parent of this worker while the block runs."""
    following = asyncio.create_task(channel.follow(worker), name="parent")
    try:
        yield
    finally:
        await cancel_and_wait(following)
        channel.close()
