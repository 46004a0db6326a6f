"""Health: `/healthz` for the process, `/readyz` for what it depends on."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from graph.state import runtime_of
from services.health import check_health
from services.runtime import Runtime

_FRESH_SECONDS = 1.0
"""Load balancers ask every few seconds; who asks more often, and anybody may, costs nothing."""

_HEADERS = {"Cache-Control": "no-store"}


@dataclass(frozen=True, slots=True)
class Readiness:
    """An answer of `/readyz`.

    Attributes:
        is_ready: Whether everything that is needed answers.
        facts: Its body, as JSON.
    """

    is_ready: bool
    facts: dict[str, Any]


class RecentReadiness:
    """Looks at most once a second; simultaneous callers share one look.

    Args:
        look: Asks all dependencies; never raises.
        clock: In seconds, rising.
    """

    def __init__(
        self,
        look: Callable[[Runtime], Awaitable[Readiness]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look = look
        self._clock = clock
        self._turn = asyncio.Lock()
        self._found: Readiness | None = None
        self._found_at = 0.0

    async def of(self, runtime: Runtime) -> Readiness:
        """Return what was found within the last second, or look.

        Args:
            runtime: The services to ask, the same at each call.
        """
        async with self._turn:
            if self._found is None or self._clock() - self._found_at >= _FRESH_SECONDS:
                self._found = await self._look(runtime)
                self._found_at = self._clock()
            return self._found


async def look(runtime: Runtime) -> Readiness:
    """Ask each dependency, and how far behind the feed is; never raises."""
    # At once: each waits some seconds for a server that hangs.
    health, feed = await asyncio.gather(check_health(runtime), _feed(runtime))
    return Readiness(health.is_ready, health.to_json() | feed)


async def _feed(runtime: Runtime) -> dict[str, Any]:
    return {} if runtime.sync is None else {"feed": (await runtime.sync.status()).to_json()}


async def healthz(_request: Request) -> JSONResponse:
    """Answer that the process runs; asks nobody else."""
    return JSONResponse({"status": "ok"}, headers=_HEADERS)


def health_routes() -> list[Route]:
    """Make the routes of one application, which remembers what it found last."""
    recent = RecentReadiness(look)

    async def readyz(request: Request) -> JSONResponse:
        """Answer each dependency by name, and the feed; 503 when one is away."""
        found = await recent.of(runtime_of(request))
        status_code = 200 if found.is_ready else 503
        return JSONResponse(found.facts, status_code=status_code, headers=_HEADERS)

    return [Route("/healthz", healthz), Route("/readyz", readyz)]
