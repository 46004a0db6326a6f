"""The renderer processes, seen from the server: a pool that outlives each of its workers.

A frame that ends its worker or takes too long costs itself only: the next frame has a new worker a
few milliseconds later. The server and Orthanc never decode what is encoded.
"""

import asyncio
import json
import logging
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

from services.errors import FrameDamaged, FrameNotRenderable, RendererCrashed, RendererUnavailable
from services.frames.rendering import RenderRequest
from services.frames.worker import ANSWER_HEAD, COMMAND, REPLY, REQUEST_HEAD, Command, Status
from services.observability.metrics import FRAME_SECONDS, timed
from services.tasks import finish_in_thread

_log = logging.getLogger(__name__)

FRAMES_OF_A_WORKER = 500
"""Then it is replaced: what native decoders leak or leave behind goes with it."""

_START_SECONDS = 30.0
"""Longest start of the template, which takes 0.5 s on an idle machine."""

_END_SECONDS = 5.0

_MOMENT_SECONDS = 0.05
"""The workers of a template that ends die with it, some of them before it counts as ended."""

_ERROR_BYTES = 2_000

_ANSWER_MAX_BYTES = 1024**3
"""Longest answer that is read: a worker that was taken over may claim any length."""

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from services.frames.worker import main; main(sys.argv[2:])"
)

_ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    # One frame, one processor: the pool has as many workers as there are processors.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
"""All of the environment of the renderers: the server's own holds its secrets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RendererLimits:
    """Limits of the renderer processes.

    Attributes:
        processes: Workers at most.
        memory_bytes: Largest address space of a worker, in bytes.
        seconds: Longest time for one frame.
    """

    processes: int = 2
    memory_bytes: int = 4 * 1024**3
    seconds: float = 10.0


class _Template:
    """The process that forks workers; thread-safe."""

    def __init__(self, limits: RendererLimits) -> None:
        """Start the process and wait until it has loaded the decoders.

        Raises:
            RendererUnavailable: It can't be started.
        """
        self._lock = threading.Lock()
        control, theirs = socket.socketpair()
        control.settimeout(_START_SECONDS)
        self._control = control
        arguments = [json.dumps(sys.path), str(theirs.fileno())]
        try:
            self._process = subprocess.Popen(  # noqa: S603  # this interpreter and our own module
                [sys.executable, "-I", "-c", _START, *arguments,
                 str(limits.memory_bytes), str(limits.seconds)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd="/",
                start_new_session=True,
                env=_ENVIRONMENT,
                pass_fds=[theirs.fileno()],
            )  # fmt: skip
        except OSError as exc:
            control.close()
            raise RendererUnavailable(detail=f"no renderer: {exc}") from exc
        finally:
            theirs.close()
        try:
            is_confined = self._reply()
        except OSError as exc:
            _log.error("the renderers can't be started: %s", self.close())
            raise RendererUnavailable(detail="the renderer ended at its start") from exc
        if not is_confined:
            _log.warning("this system does not filter the system calls of renderers")

    def ends(self) -> bool:
        """Return whether the process has ended or does so in a moment; blocks for 50 ms."""
        try:
            self._process.wait(_MOMENT_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        return True

    @property
    def pid(self) -> int:
        """The process id of the template."""
        return self._process.pid

    def fork(self) -> "_Worker":
        """Fork a worker.

        Raises:
            OSError: The template has ended.
        """
        ours, theirs = socket.socketpair()
        try:
            with self._lock, theirs:
                socket.send_fds(self._control, [COMMAND.pack(Command.FORK, 0)], [theirs.fileno()])
                pid = self._reply()
        except OSError:
            ours.close()
            raise
        return _Worker(self, ours, pid)

    def kill(self, pid: int) -> None:
        """Kill a worker, if it has not ended already."""
        with self._lock:
            try:
                self._control.sendall(COMMAND.pack(Command.KILL, pid))
            except OSError:
                # The template has ended, and its workers with it.
                return

    def close(self) -> str:
        """End the template and with it all workers; blocks.

        Returns:
            The end of what it wrote to its standard error.
        """
        self._control.close()
        try:
            _, errors = self._process.communicate(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            _, errors = self._process.communicate()
        return errors[-_ERROR_BYTES:].decode("utf-8", "replace")

    def _reply(self) -> int:
        content = b""
        while len(content) < REPLY.size:
            part = self._control.recv(REPLY.size - len(content))
            if not part:
                raise ConnectionResetError("the template has ended")
            content += part
        return int(REPLY.unpack(content)[0])


class _Worker:
    """One process that renders; used by one thread at a time."""

    def __init__(self, template: _Template, connection: socket.socket, pid: int) -> None:
        self.template = template
        self.pid = pid
        self.frames = 0
        self._connection = connection

    def ask(self, request: bytes, *, seconds: float) -> tuple[int, bytes]:
        """Send a request and wait for its answer; blocks.

        Raises:
            TimeoutError: There is no answer in time.
            OSError: The worker has ended.
        """
        self.frames += 1
        until = time.monotonic() + seconds
        self._wait_until(until)
        self._connection.sendall(REQUEST_HEAD.pack(len(request)))
        self._connection.sendall(request)
        status, size = ANSWER_HEAD.unpack(self._receive(ANSWER_HEAD.size, until))
        if size > _ANSWER_MAX_BYTES:
            raise ConnectionResetError("an answer of a worker is too long")
        return status, self._receive(size, until)

    @property
    def is_alive(self) -> bool:
        """Whether the process waits for a request."""
        try:
            self._connection.settimeout(0)
            self._connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        # It has ended, or sends what was not asked for.
        return False

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self.template.kill(self.pid)
        self._connection.close()

    def _receive(self, size: int, until: float) -> bytes:
        content = bytearray()
        while len(content) < size:
            self._wait_until(until)
            part = self._connection.recv(min(size - len(content), 1024 * 1024))
            if not part:
                raise ConnectionResetError("the worker has ended")
            content += part
        return bytes(content)

    def _wait_until(self, until: float) -> None:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)


class RendererPool:
    """Renders frames in processes of their own; for one event loop.

    Args:
        limits: Of the processes.
    """

    def __init__(self, limits: RendererLimits) -> None:
        self._limits = limits
        self._threads = ThreadPoolExecutor(limits.processes, thread_name_prefix="renderers")
        self._lock = threading.Lock()
        self._starting = threading.Lock()
        self._template: _Template | None = None
        self._idle: list[_Worker] = []
        self._is_closed = False

    async def start(self) -> None:
        """Start the processes before they are needed.

        Raises:
            RendererUnavailable: They can't be started.
        """
        await asyncio.get_running_loop().run_in_executor(self._threads, self._warm_up)

    async def render(self, request: RenderRequest) -> bytes:
        """Render a frame.

        When the caller is cancelled, the worker finishes the frame and its answer is discarded.

        Returns:
            A PNG or JPEG file, as `request.variant` says.

        Raises:
            FrameNotRenderable: It can't be shown, with the reason.
            RendererCrashed: It ended its worker, or took too long or too much memory.
            RendererUnavailable: The renderers can't be started or are stopping.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, self._render, request
        )

    async def close(self) -> None:
        """End all processes; what is being rendered breaks off."""
        self._is_closed = True
        await finish_in_thread(self._close)

    def _close(self) -> None:
        with self._starting:
            template = self._template
        if template is not None:
            template.close()
        self._threads.shutdown(cancel_futures=True)
        for worker in self._idle:
            worker.end()

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers that wait for a frame."""
        with self._lock:
            return [worker.pid for worker in self._idle]

    @property
    def template_pid(self) -> int | None:
        """Process id of the template, None before the first start."""
        return None if self._template is None else self._template.pid

    def _warm_up(self) -> None:
        self._put_back(self._take())

    def _render(self, request: RenderRequest) -> bytes:
        payload = pickle.dumps(request, protocol=pickle.HIGHEST_PROTOCOL)
        with timed(FRAME_SECONDS, "render"):
            try:
                return self._ask(payload)
            except RendererCrashed:
                raise
            except RendererUnavailable:
                # All renderers ended at once: no fault of this frame.
                return self._ask(payload)

    def _ask(self, payload: bytes) -> bytes:
        worker = self._take()
        try:
            status, content = worker.ask(payload, seconds=self._limits.seconds)
        except OSError as exc:
            raise self._failure(worker, exc) from exc
        if status == Status.OUT_OF_MEMORY:
            worker.end()
            raise RendererCrashed("This frame takes more memory than a frame may.")
        self._put_back(worker)
        if status == Status.RENDERED:
            return content
        message = content.decode("utf-8", "replace") or None
        if status == Status.DAMAGED:
            raise FrameDamaged(message)
        raise FrameNotRenderable(message)

    def _failure(self, worker: _Worker, exc: OSError) -> RendererUnavailable:
        """Return what the end of a worker means: its frame is to blame unless all ended."""
        worker.end()
        if self._is_closed or worker.template.ends():
            return RendererUnavailable(detail="the renderers ended")
        if isinstance(exc, TimeoutError):
            return RendererCrashed(f"This frame took longer than {self._limits.seconds:g} s.")
        return RendererCrashed(detail="a renderer ended")

    def _take(self) -> _Worker:
        while (idle := self._pop_idle()) is not None:
            if idle.is_alive:
                return idle
            idle.end()
        for attempt in (1, 2):
            template = self._running_template()
            try:
                return template.fork()
            except OSError as exc:
                _log.warning("the renderers ended and are started again")
                if attempt == 2:  # noqa: PLR2004  # a new template that ends at once
                    raise RendererUnavailable(detail="a renderer can't be forked") from exc
                self._drop(template)
        raise AssertionError

    def _put_back(self, worker: _Worker) -> None:
        with self._lock:
            is_good = worker.frames < FRAMES_OF_A_WORKER and not self._is_closed
            if is_good:
                self._idle.append(worker)
        if not is_good:
            worker.end()

    def _pop_idle(self) -> _Worker | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _running_template(self) -> _Template:
        with self._starting:
            if self._is_closed:
                raise RendererUnavailable(detail="the server is stopping")
            if self._template is None:
                self._template = _Template(self._limits)
            return self._template

    def _drop(self, template: _Template) -> None:
        with self._starting:
            if self._template is template:
                self._template = None
        with self._lock:
            stale = [worker for worker in self._idle if worker.template is template]
            self._idle = [worker for worker in self._idle if worker.template is not template]
        for worker in stale:
            worker.end()
        template.close()


@asynccontextmanager
async def open_renderers(limits: RendererLimits) -> AsyncIterator[RendererPool]:
    """Open a pool; its processes start when the first frame needs them."""
    pool = RendererPool(limits)
    try:
        yield pool
    finally:
        await pool.close()
