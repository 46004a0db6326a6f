"""A child process that is restarted when it dies, and never outlives this process."""

import asyncio
import logging
import os
import resource
import shutil
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from services.embedded.failures import StartFailed
from services.tasks import finish_in_thread

_log = logging.getLogger(__name__)

_READY_SECONDS = 60.0
"""Longest start: mongod replays its journal and Orthanc upgrades its index before they answer."""
_SHORT_LIFE_SECONDS = 2.0
"""If a child dies sooner, its start failed, and would fail again."""
_FIRST_DELAY_SECONDS = 0.1
_LONGEST_DELAY_SECONDS = 5.0
"""Longest pause before a restart: a store that stopped on a full disk soon finds space again."""
_STOP_SECONDS = 10.0
_LOG_TAIL_BYTES = 2000


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to start.

    Attributes:
        name: For the log and for messages.
        command: Program and arguments, without secrets, because all users can list them.
        log_path: Gets stdout and stderr; the log of the previous start is kept beside it.
        on_restart: Called with the name after each restart.
        memory_bytes: Most address space that the system gives it, in bytes; None: no limit.
    """

    name: str
    command: Sequence[str]
    log_path: Path
    on_restart: Callable[[str], None] | None = field(default=None)
    memory_bytes: int | None = None


class Child:
    """A running child. Make one with `supervise`."""

    def __init__(self, spec: ChildSpec, process: Process) -> None:
        self._spec = spec
        self._process = process
        self._started = time.monotonic()
        self._stopping = asyncio.Event()
        self.restarts = 0

    @property
    def pid(self) -> int:
        """The process id of the child as it is now."""
        return self._process.pid

    async def wait(self) -> int:
        """Wait until the child has ended; answers its exit code, negative for a signal."""
        return await self._process.wait()

    async def keep_alive(self) -> None:
        """Start the child again whenever it ends, until `stop`."""
        short_lives = 0
        while not self._stopping.is_set():
            code = await self._process.wait()
            if self._stopping.is_set():
                return
            short = time.monotonic() - self._started < _SHORT_LIFE_SECONDS
            short_lives = short_lives + 1 if short else 0
            delay = restart_delay(short_lives)
            _log.warning("%s ended (%s); restart in %.1f s", self._spec.name, code, delay)
            if not await self._stops_within(delay):
                await self._restart()

    async def stop(self, keeper: "asyncio.Task[None] | None" = None) -> None:
        """End the child: SIGTERM, and SIGKILL when that takes too long."""
        self._stopping.set()
        await _end(self._process)
        if keeper is not None:
            await keeper
            # The keeper may have been in the middle of a restart.
            await _end(self._process)

    async def _restart(self) -> None:
        self._started = time.monotonic()
        try:
            self._process = await _spawn(self._spec)
        except OSError as exc:
            # For example while its package is upgraded.
            _log.error("%s can't be started: %s", self._spec.name, exc)
            return
        self.restarts += 1
        _log.warning("%s restarted (restart %d)", self._spec.name, self.restarts)
        if self._spec.on_restart is not None:
            self._spec.on_restart(self._spec.name)

    async def _stops_within(self, seconds: float) -> bool:
        if seconds > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()


def restart_delay(short_lives: int) -> float:
    """Compute the pause before a restart, in seconds.

    Args:
        short_lives: How often in a row the child has died right after its start.
    """
    if short_lives <= 1:
        return 0.0
    return min(_FIRST_DELAY_SECONDS * 2.0 ** min(short_lives - 2, 16), _LONGEST_DELAY_SECONDS)


@asynccontextmanager
async def supervise(
    spec: ChildSpec, wait_until_ready: Callable[[], Awaitable[None]]
) -> AsyncIterator[Child]:
    """Run a child: ready when entered, restarted while inside, gone when left.

    Args:
        spec: What to start.
        wait_until_ready: Returns as soon as the child does its work.

    Raises:
        StartFailed: It ended, or was not ready in 60 s.
    """
    await finish_in_thread(_keep_last_log, spec.log_path)
    try:
        process = await _spawn(spec)
    except OSError as exc:
        raise StartFailed(f"{spec.name} can't be started: {exc}") from exc
    child = Child(spec, process)
    keeper: asyncio.Task[None] | None = None
    try:
        await _until_ready(child, spec, wait_until_ready)
        keeper = asyncio.create_task(child.keep_alive(), name=f"keep {spec.name} alive")
        yield child
    finally:
        await child.stop(keeper)


async def _until_ready(
    child: Child, spec: ChildSpec, wait_until_ready: Callable[[], Awaitable[None]]
) -> None:
    ready = asyncio.ensure_future(wait_until_ready())
    ended = asyncio.ensure_future(child.wait())
    try:
        await asyncio.wait(
            {ready, ended}, timeout=_READY_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        if ready.done():
            return ready.result()
        what = f"stopped at its start (exit code {ended.result()})" if ended.done() else "hangs"
    finally:
        for task in (ready, ended):
            task.cancel()
        await asyncio.gather(ready, ended, return_exceptions=True)
    raise StartFailed(
        f"{spec.name} {what}. Its log: {spec.log_path}",
        detail=await finish_in_thread(_read_log_tail, spec.log_path),
    )


async def _spawn(spec: ChildSpec) -> Process:
    opened: list[int] = []
    try:
        await finish_in_thread(lambda: opened.append(_open_log(spec.log_path)))
        process = await asyncio.create_subprocess_exec(
            *bound_to_parent(spec.command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=opened[0],
            stderr=asyncio.subprocess.STDOUT,
            # Ctrl-C in a terminal signals its process group; the children are ended in order here.
            start_new_session=True,
            env=_environment(),
        )
        if spec.memory_bytes is not None:
            limit_memory(process.pid, spec.memory_bytes)
    finally:
        for log in opened:
            os.close(log)
    return process


def limit_memory(pid: int, memory_bytes: int) -> None:
    """Let the system refuse a process more address space than this.

    A child that is refused memory returns an error, or ends and is restarted. Without a limit, the
    kernel could end any process when the machine is out of memory.
    The limit counts from the first moments of the process; its own children inherit it.

    Args:
        pid: The process.
        memory_bytes: In bytes (RLIMIT_AS).
    """
    if sys.platform != "linux":
        _log.warning("this system can't limit the memory of another process")
        return
    with suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def bound_to_parent(command: Sequence[str]) -> list[str]:
    """Wrap a command so that Linux kills it with the thread that started it (prctl(2)).

    Where `setpriv` (util-linux) is missing, as on macOS, the command stays as it is: then the
    child outlives a SIGKILL of its parent.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        _log.warning("setpriv is missing: embedded stores would outlive a SIGKILL of the server")
        return list(command)
    return [setpriv, "--pdeathsig", "KILL", "--", *command]


def _environment() -> dict[str, str]:
    # The settings of the server stand in its environment, secrets among them.
    return {
        name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "TZ") if name in os.environ
    }


async def _end(process: Process) -> None:
    if process.returncode is not None:
        return
    try:
        with suppress(ProcessLookupError):
            process.terminate()
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _STOP_SECONDS)
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
    await process.wait()


def _open_log(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _keep_last_log(path: Path) -> None:
    if path.exists():
        path.replace(path.with_suffix(".last.log"))


def _read_log_tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - _LOG_TAIL_BYTES))
        return file.read().decode("utf-8", "replace")
