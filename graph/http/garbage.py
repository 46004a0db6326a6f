"""Full garbage collections while the process is idle.

A full collection visits every container in memory, and blocks the event loop. CPython starts one
when enough young objects have survived, which happens during large queries: with 80,000 instances
in two results each took up to 0.55 s on a busy machine. Here they are deferred until the process is
nearly idle. Reference counting and the collections of young generations, which find most cycles,
are not changed.
"""

import asyncio
import ctypes
import gc
import time
from collections.abc import Awaitable, Callable

from services.tasks import finish_in_thread

_NEVER = 2**31 - 1
"""Threshold of the oldest generation, in collections of the middle one: practically never."""

_INTERVAL_SECONDS = 1.0
_IDLE_SHARE = 0.2
"""Below this share of processor time in the last second, the process counts as idle."""

_LATE_SECONDS = 0.03
"""An idle event loop ends a sleep within a few milliseconds."""

_COLLECTED_EVERY_SECONDS = 30.0
_LONGEST_SECONDS = 600.0
"""A process that is never idle collects after this time nevertheless, to free cycles."""


def defer_full_collections() -> None:
    """Leave full collections to `collect_while_idle`, and exclude present objects from them."""
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _NEVER)


def trim_memory() -> None:
    """Return free memory to the system.

    glibc keeps memory that large responses used, up to hundreds of megabytes, while a block behind
    it is in use. Other C libraries have no `malloc_trim`.
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
    """Collect from time to time, and return free memory; runs until it is cancelled.

    Args:
        sleep: Waits for a number of seconds.
        clock: In seconds, rising.
        computed: Processor time of this process, in seconds.
        collect: Performs a full collection.
        trim: Returns free memory, in a thread; a busy process does so as well.
    """
    collected_at = trimmed_at = clock()
    while True:
        begun, begun_computing = clock(), computed()
        await sleep(_INTERVAL_SECONDS)
        now = clock()
        passed = now - begun
        # On a busy machine a process computes little, but its sleep ends late.
        is_on_time = passed < _INTERVAL_SECONDS + _LATE_SECONDS
        is_idle = is_on_time and computed() - begun_computing < _IDLE_SHARE * passed
        age = now - collected_at
        if age >= _LONGEST_SECONDS or (is_idle and age >= _COLLECTED_EVERY_SECONDS):
            collect()
            collected_at = now
        if now - trimmed_at >= _COLLECTED_EVERY_SECONDS:
            await trim()
            trimmed_at = now
