"""File descriptors of this process: as many as the system allows, and watched.

Each connection takes one, and 1,024 are the default of many systems: 1,000 idle WebSockets would
shut everybody else out, without a word in the log.
"""

import asyncio
import logging
import resource
from pathlib import Path

from services.tasks import HANGING_SECONDS, finish_in_thread, heartbeat

_log = logging.getLogger(__name__)

_WANTED = 65_536
"""More than the connections that one process can serve; without a bound some systems allow a
thousand million, for which programs reserve memory."""

_LOOK_SECONDS = 5.0
_LOG_AGAIN_LOOKS = 12
"""A minute."""

_NEARLY_ALL = 0.8


def raise_descriptor_limit() -> None:
    """Raise the soft limit of open descriptors to the hard limit, as far as it is of use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(_WANTED, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def describe_descriptors(used: int, limit: int) -> str | None:
    """Say that descriptors are running out; None while enough are left.

    Args:
        used: How many are open.
        limit: How many may be open.
    """
    if used < limit * _NEARLY_ALL:
        return None
    return (
        f"{used} of {limit} file descriptors are in use: new connections will be refused. "
        "Raise the limit (ulimit -n, LimitNOFILE of systemd) or look for clients that keep "
        "connections open."
    )


def count_descriptors() -> tuple[int, int]:
    """Return how many descriptors are open and how many may be; blocks for milliseconds."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        return sum(1 for _ in Path("/proc/self/fd").iterdir()), limit
    except FileNotFoundError:
        # Only Linux has this folder.
        return 0, limit
    except OSError:
        # Counting needs one itself.
        return limit, limit


class DescriptorWatch:
    """Logs when descriptors are running out, at most once a minute.

    Attributes:
        warning: What was found last, None when all is well.
    """

    def __init__(self) -> None:
        self.warning: str | None = None

    async def run(self) -> None:
        """Look every five seconds, until cancelled."""
        looks = 0
        with heartbeat("file descriptors") as alive:
            while True:
                alive.beat(_LOOK_SECONDS + HANGING_SECONDS)
                self.warning = describe_descriptors(*await finish_in_thread(count_descriptors))
                if self.warning is None:
                    looks = 0
                else:
                    if looks % _LOG_AGAIN_LOOKS == 0:
                        _log.error("%s", self.warning)
                    looks += 1
                await asyncio.sleep(_LOOK_SECONDS)
