"""Stopping tasks for certain."""

import asyncio
from typing import Any

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
