"""Health: `/healthz` for the process, `/readyz` for what it depends on.

`/readyz` answers everybody with a status, and administrators with the details: versions and
messages help an attacker to choose.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from graph.authentication import principal_of
from graph.state import runtime_of
from services.auth.roles import Role
from services.health import check_health
from services.runtime import Runtime

_FRESH_SECONDS = 1.0
"""Load balancers ask every few seconds. Anonymous requests are cheap, however many."""

_HEADERS = {"Cache-Control": "no-store"}


@dataclass(frozen=True, slots=True)
class Readiness:
    """An answer of `/readyz`.

    Attributes:
        is_ready: Whether everything that is needed answers.
        status: For everybody, as `Health.status`.
        details: For administrators, as JSON.
    """

    is_ready: bool
    status: str
    details: dict[str, Any]


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
    return Readiness(health.is_ready, health.status, health.to_json() | feed)


async def _feed(runtime: Runtime) -> dict[str, Any]:
    return {} if runtime.sync is None else {"feed": (await runtime.sync.status()).to_json()}


async def healthz(_request: Request) -> JSONResponse:
    """Answer that the process runs, whatever the state of the stores."""
    return JSONResponse({"status": "ok"}, headers=_HEADERS)


def health_routes() -> list[Route]:
    """Make the routes of one application, which remembers what it found last."""
    recent = RecentReadiness(look)

    async def readyz(request: Request) -> JSONResponse:
        """Answer whether the server is ready; 503 when something that it needs is away.

        For administrators the answer lists each dependency, the failing background tasks and
        how far behind the change feed is.
        """
        found = await recent.of(runtime_of(request))
        principal = await principal_of(request)
        is_admin = principal is not None and principal.role >= Role.ADMIN
        return JSONResponse(
            found.details if is_admin else {"status": found.status},
            status_code=200 if found.is_ready else 503,
            headers=_HEADERS,
        )

    return [Route("/healthz", healthz), Route("/readyz", readyz)]
