"""Work that many callers want at the same time, done for all of them at once."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

_T = TypeVar("_T")


class Alarm:
    """A pause that can be cut short; a ring while nobody waits is kept."""

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
            Whether somebody rang.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            return False
        self._rung.clear()
        return True


async def wait_for_all(calls: Iterable[Awaitable[_T]]) -> list[_T]:
    """Wait for all calls, then raise the first error: none is left running behind the caller.

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


_AGAIN_SECONDS = 5.0
"""What tidies up after its cancellation has so long before it is cancelled again."""


async def stop(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel tasks until all have ended; what they raise is theirs.

    PyMongo may swallow a cancellation, such as while it waits for a connection: the task goes on,
    and whoever waited for its end would wait for ever.
    """
    pending = {task for task in tasks if not task.done()}
    is_cancelled = False
    while pending:
        for task in pending:
            task.cancel()
        try:
            _, pending = await asyncio.wait(pending, timeout=_AGAIN_SECONDS)
        except asyncio.CancelledError:
            # No task may stay behind its caller.
            is_cancelled = True
            pending = {task for task in pending if not task.done()}
    for task in tasks:
        if not task.cancelled():
            # Taken note of: otherwise the event loop reports it as never retrieved.
            task.exception()
    if is_cancelled:
        raise asyncio.CancelledError


_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[_Item, _Answer]):
    item: _Item
    done: "asyncio.Future[_Answer]"


class Coalescer(Generic[_Item, _Answer]):
    """Gathers items while a batch is worked on; the next batch takes all of them.

    Args:
        work: Works on a batch and returns an answer per item, in their order; an exception as an
            answer is raised to that item's caller. What it raises itself reaches every caller.
        max_weight: Most weight of one batch; an item that weighs more is a batch of its own.
        weigh: Tells an item's weight, 1 by default.
        gather: Awaited before each batch, which grows by what comes meanwhile; None: no pause.
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
        """Have an item worked on.

        A caller that is cancelled takes nobody else's work back, and perhaps not even its own.
        """
        done: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(item, done))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await done

    async def aclose(self) -> None:
        """Wait for what is being worked on."""
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
        """Take items up to the limit, one at least."""
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
