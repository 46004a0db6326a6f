"""Full garbage collections while the process is idle.

A full collection visits every container in memory, and the event loop waits for it.
CPython starts one whenever enough young objects have survived, which is in the middle of wide
queries: with 80,000 instances in two results each took up to 0.55 s on a busy machine. Here they
wait until the process has next to nothing to do. Reference counting frees results as always, and
the young generations, which find most cycles, are collected as always.
"""

import asyncio
import ctypes
import gc
import time
from collections.abc import Awaitable, Callable

from services.tasks import finish_in_thread

_NEVER = 2**31 - 1
"""As threshold of the oldest generation: so many collections of the middle one."""

_INTERVAL_SECONDS = 1.0
_IDLE_SHARE = 0.2
"""A process that computed for less than a fifth of the last second answers nothing large."""

_LATE_SECONDS = 0.03
"""An event loop that does nothing ends a sleep within a few milliseconds."""

_COLLECTED_EVERY_SECONDS = 30.0
_LONGEST_SECONDS = 600.0
"""A process that is never idle collects after so long all the same, so that no cycle stays."""


def defer_full_collections() -> None:
    """Leave full collections to `collect_while_idle`, and what is in memory now out of them."""
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _NEVER)


def trim_memory() -> None:
    """Give free memory back to the system.

    glibc keeps what large answers took, up to hundreds of megabytes, while a later block is in use.
    Other C libraries have no `malloc_trim`.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


async def collect_while_idle(
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
    computed: Callable[[], float] = time.process_time,
    collect: Callable[[], object] = gc.collect,
    trim: Callable[[], Awaitable[object]] = lambda: finish_in_thread(trim_memory),
) -> None:
    """Collect from time to time, and give free memory back; runs until it is cancelled.

    Args:
        sleep: Waits for so many seconds.
        clock: In seconds, rising.
        computed: Processor time of this process, in seconds.
        collect: Does it.
        trim: Gives free memory back, in a thread: also a busy process does so.
    """
    collected_at = trimmed_at = clock()
    while True:
        begun, begun_computing = clock(), computed()
        await sleep(_INTERVAL_SECONDS)
        now = clock()
        passed = now - begun
        # Where others keep the processors busy a process computes little, and its sleep ends late.
        is_on_time = passed < _INTERVAL_SECONDS + _LATE_SECONDS
        is_idle = is_on_time and computed() - begun_computing < _IDLE_SHARE * passed
        age = now - collected_at
        if age >= _LONGEST_SECONDS or (is_idle and age >= _COLLECTED_EVERY_SECONDS):
            collect()
            collected_at = now
        if now - trimmed_at >= _COLLECTED_EVERY_SECONDS:
            await trim()
            trimmed_at = now
