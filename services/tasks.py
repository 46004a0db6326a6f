"""Tasks and threads: supervised, waited for, cancelled to their end, shared by many callers."""

import asyncio
import logging
import threading
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import Executor
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, TypeVarTuple, cast

_log = logging.getLogger(__name__)

_T = TypeVar("_T")
_Arguments = TypeVarTuple("_Arguments")


class Alarm:
    """A pause that can be ended early; a ring without a waiter ends the next wait."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """End the present or the next wait."""
        self._rung.set()

    async def wait(self, seconds: float) -> bool:
        """Wait.

        Args:
            seconds: Longest wait.

        Returns:
            Whether it was rung.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            return False
        self._rung.clear()
        return True


async def wait_for_all(calls: Iterable[Awaitable[_T]]) -> list[_T]:
    """Wait for all calls, then raise the first error, so that no call outlives the caller.

    Args:
        calls: What to wait for, at once.

    Returns:
        The results in the order of the calls.
    """
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return cast("list[_T]", outcomes)


class AbortSignal:
    """Lets one thread end early what another one is doing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_set = False
        self._callbacks: list[Callable[[], None]] = []

    @property
    def is_set(self) -> bool:
        """Whether the work should end."""
        return self._is_set

    def set(self) -> None:
        """Ask the work to end; does not block."""
        with self._lock:
            self._is_set = True
            for callback in self._callbacks:
                callback()

    @contextmanager
    def calling(self, abort: Callable[[], None]) -> Iterator[None]:
        """Call a function when the signal is set while the block runs, or at once if it is set.

        Args:
            abort: Called in the thread that sets the signal; must not block.
        """
        with self._lock:
            self._callbacks.append(abort)
            is_set = self._is_set
        try:
            if is_set:
                abort()
            yield
        finally:
            with self._lock:
                self._callbacks.remove(abort)


async def finish_in_thread(
    work: Callable[[*_Arguments], _T],
    *arguments: *_Arguments,
    executor: Executor | None = None,
    abort: Callable[[], None] | None = None,
) -> _T:
    """Run blocking work in a thread, and never return before the thread has ended.

    A cancelled caller closes what it opened. A thread that still used it would go on with a
    descriptor whose number may by then belong to another file, so the cancellation is raised
    only when the thread has ended. `asyncio.to_thread` does not wait: the linter bans it.

    Args:
        work: Blocks; may use what the caller owns. It runs in the caller's context, so that what it
            logs carries the correlation id of the request.
        arguments: Passed to `work`.
        executor: Where to run it; None: the default executor of the event loop.
        abort: Called once when the caller is cancelled, to make the work end early. It may be
            called before the work begins, and must not block.

    Raises:
        CancelledError: The caller was cancelled; the thread has ended, or never began.
        Exception: Whatever the work raises.
    """
    # A future and not a task: the end of the event loop cancels all tasks, and a task around the
    # thread would end before the thread does.
    running = asyncio.get_running_loop().run_in_executor(
        executor, copy_context().run, work, *arguments
    )
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError as exc:
            if cancelled is None and abort is not None:
                abort()
            cancelled = exc
    if cancelled is None:
        return running.result()
    if not running.cancelled():
        # Retrieve the exception: otherwise the event loop logs it as never retrieved.
        running.exception()
    raise cancelled


_AGAIN_SECONDS = 5.0
"""A task that cleans up after its cancellation has this long before it is cancelled again."""


async def cancel_and_wait(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel tasks until all have ended; their exceptions are not raised.

    PyMongo may swallow a cancellation, for example while it waits for a connection. The task then
    goes on, so one cancellation is not enough.
    """
    pending = {task for task in tasks if not task.done()}
    is_cancelled = False
    while pending:
        for task in pending:
            task.cancel()
        try:
            _, pending = await asyncio.wait(pending, timeout=_AGAIN_SECONDS)
        except asyncio.CancelledError:
            # No task may outlive its caller.
            is_cancelled = True
            pending = {task for task in pending if not task.done()}
    for task in tasks:
        if not task.cancelled():
            # Retrieve the exception: otherwise the event loop logs it as never retrieved.
            task.exception()
    if is_cancelled:
        raise asyncio.CancelledError


_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
"""Longest pause before a failed background task is started again."""

_STEADY_SECONDS = 10.0
"""A task that has run for so long since its last failure counts as healthy again."""


HANGING_SECONDS = 300.0
"""A loop whose step takes so long hangs; no call of Orthanc or MongoDB lasts half as long."""


class Heartbeat:
    """The signs of life of one loop: `beat` sets when the next one is due.

    Args:
        name: Of the loop, for the log.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._timer: asyncio.TimerHandle | None = None
        self.is_overdue = False

    def beat(self, seconds: float) -> None:
        """Report that the loop is running.

        Args:
            seconds: The next sign of life comes within this time, or the loop counts as hanging
                until it comes.
        """
        self.stop()
        if self.is_overdue:
            _log.warning("%r goes on again", self._name)
            self.is_overdue = False
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, self._log_overdue, seconds)

    def stop(self) -> None:
        """End the heartbeat."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _log_overdue(self, seconds: float) -> None:
        self._timer = None
        self.is_overdue = True
        _log.error("%r hangs: it gave no sign of life for %g s", self._name, seconds)


@dataclass(slots=True)
class _Supervised:
    """One background task: its consecutive failures, and since when it runs."""

    failures: int = 0
    started_at: float = 0.0
    reason: str = ""
    heartbeats: dict[str, Heartbeat] = field(default_factory=dict)


_supervised: ContextVar[_Supervised | None] = ContextVar("supervised", default=None)
_heartbeat: ContextVar[Heartbeat | None] = ContextVar("heartbeat", default=None)


@contextmanager
def heartbeat(name: str) -> Iterator[Heartbeat]:
    """Open the heartbeat of a loop for as long as the loop runs.

    If a heartbeat is overdue, the background task of the loop counts as failing; see
    `Supervisor.failing`. For a loop outside of background tasks it is only logged.

    Args:
        name: Unique among the loops that run in one background task.
    """
    own = Heartbeat(name)
    task = _supervised.get()
    if task is not None:
        task.heartbeats[name] = own
    before = _heartbeat.set(own)
    try:
        yield own
    finally:
        _heartbeat.reset(before)
        own.stop()
        if task is not None and task.heartbeats.get(name) is own:
            del task.heartbeats[name]


def beat(seconds: float) -> None:
    """Report that the loop around the caller is running; see `Heartbeat.beat`.

    It is for long work within one step of a loop. Without a heartbeat, for example in a command,
    nothing happens.
    """
    current = _heartbeat.get()
    if current is not None:
        current.beat(seconds)


class Supervisor:
    """Restarts background tasks that end, logs why, and reports those that fail or hang.

    A background task runs until it is cancelled. If it raises or returns, it is started again
    after 0.1 s, and after up to 5 s when it fails repeatedly.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tasks: dict[str, _Supervised] = {}

    @asynccontextmanager
    async def running(self, name: str, work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        """Run a background task while the block runs; at the end it is cancelled and waited for.

        Args:
            name: For the log and for `/api/status`, unique among the tasks that run.
            work: Starts the task; called again after each failure.
        """
        if name in self._tasks:
            raise ValueError(f"two background tasks named {name!r}")
        self._tasks[name] = _Supervised(started_at=self._clock())
        ending = asyncio.Event()
        task = asyncio.create_task(self._keep_running(name, work, ending), name=name)
        try:
            yield
        finally:
            ending.set()
            await cancel_and_wait(task)
            del self._tasks[name]

    @property
    def names(self) -> Sequence[str]:
        """The background tasks that run now, sorted."""
        return sorted(self._tasks)

    @property
    def failing(self) -> Mapping[str, str]:
        """Why tasks fail, by name: the class of the last error, or the loop that hangs.

        A task is healthy again when it has run for 10 s without a failure, and each of its loops
        has shown a sign of life.
        """
        now = self._clock()
        failing = {}
        for name, task in sorted(self._tasks.items()):
            hanging = [loop for loop, one in task.heartbeats.items() if one.is_overdue]
            if hanging:
                failing[name] = f"no sign of life: {', '.join(sorted(hanging))}"
            elif task.failures and now - task.started_at < _STEADY_SECONDS:
                failing[name] = task.reason
        return failing

    async def _keep_running(
        self, name: str, work: Callable[[], Awaitable[None]], ending: asyncio.Event
    ) -> None:
        task = self._tasks[name]
        _supervised.set(task)
        while True:
            task.started_at = self._clock()
            failure: BaseException | None = None
            try:
                await work()
            except asyncio.CancelledError as exc:
                current = asyncio.current_task()
                if current is None or current.cancelling() or ending.is_set():
                    raise
                # Something that the task awaited was cancelled, not the task itself.
                failure = exc
            except Exception as exc:  # noqa: BLE001  # no failure may end a background task
                failure = exc
            if ending.is_set():
                return
            reason = "it returned" if failure is None else type(failure).__name__
            message = "the background task %r failed (%s); it is started again"
            _log.error(message, name, reason, exc_info=failure)
            if self._clock() - task.started_at >= _STEADY_SECONDS:
                task.failures = 0
            task.failures += 1
            task.reason = reason
            await asyncio.sleep(_pause_seconds(task.failures))


def _pause_seconds(failures: int) -> float:
    return min(_FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 16), _LONGEST_PAUSE_SECONDS)


_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[_Item, _Answer]):
    item: _Item
    done: "asyncio.Future[_Answer]"


class Coalescer(Generic[_Item, _Answer]):
    """Collects items while a batch is processed; the next batch contains all of them.

    Args:
        work: Processes a batch and returns a result for each item, in their order. A result that
            is an exception is raised to the caller of the item; exceptions that it raises are
            raised to all callers.
        max_weight: Most weight of one batch; an item that weighs more is a batch by itself.
        weigh: Returns an item's weight, 1 by default.
        gather: Awaited before each batch, to which items are added meanwhile; None: no pause.
    """

    def __init__(
        self,
        work: Callable[[Sequence[_Item]], Awaitable[Sequence[_Answer | Exception]]],
        *,
        max_weight: int,
        weigh: Callable[[_Item], int] = lambda _item: 1,
        gather: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._work_on = work
        self._max_weight = max_weight
        self._weigh = weigh
        self._gather = gather
        self._waiting: list[_Waiting[_Item, _Answer]] = []
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, item: _Item) -> _Answer:
        """Process an item with the next batch.

        If a caller is cancelled, its item may still be processed; other callers are not affected.
        """
        done: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(item, done))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await done

    async def aclose(self) -> None:
        """Wait for the batch that is being processed."""
        if self._worker is not None:
            await asyncio.wait([self._worker])

    async def _work(self) -> None:
        while self._waiting:
            if self._gather is not None:
                await self._gather()
            batch = self._take_batch()
            try:
                answers = await self._work_on([waiting.item for waiting in batch])
            except asyncio.CancelledError:
                for waiting in batch:
                    waiting.done.cancel()
                raise
            except Exception as exc:  # noqa: BLE001  # raised to every caller
                answers = [exc] * len(batch)
            for waiting, answer in zip(batch, answers, strict=True):
                _resolve(waiting.done, answer)

    def _take_batch(self) -> list[_Waiting[_Item, _Answer]]:
        """Take items up to the limit, at least one."""
        weight = count = 0
        for waiting in self._waiting:
            weight += self._weigh(waiting.item)
            if count and weight > self._max_weight:
                break
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch


def _resolve(done: "asyncio.Future[_Answer]", answer: _Answer | Exception) -> None:
    if done.done():
        return
    if isinstance(answer, Exception):
        done.set_exception(answer)
    else:
        done.set_result(answer)
