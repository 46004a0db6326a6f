"""Health: `/healthz` for supervisors, `/readyz` for load balancers, `/api/status` for people.

`/healthz` answers while the process runs. `/readyz` answers whether requests should come to this
process; it sends no request and does not depend on Orthanc (`services.health.readiness`).
`/api/status` asks all dependencies; it is for administrators, because versions and messages would
help an attacker.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from graph.authentication import principal_of
from graph.http.errors import refusal
from graph.state import runtime_of
from services.auth.roles import Role, authorize
from services.errors import Error
from services.runtime import Runtime

_FRESH_SECONDS = 1.0
"""A monitor may ask every few seconds, and several may."""

_HEADERS = {"Cache-Control": "no-store"}

Status = dict[str, Any]
"""An answer of `/api/status`, as JSON."""


class RecentStatus:
    """Looks at most once a second; simultaneous callers share one look.

    Args:
        look: Asks all dependencies; never raises.
        clock: In seconds, rising.
    """

    def __init__(
        self,
        look: Callable[[Runtime], Awaitable[Status]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look = look
        self._clock = clock
        self._turn = asyncio.Lock()
        self._found: Status | None = None
        self._found_at = 0.0

    async def of(self, runtime: Runtime) -> Status:
        """Return what was found within the last second, or look.

        Args:
            runtime: The services to ask, the same at each call.
        """
        async with self._turn:
            if self._found is None or self._clock() - self._found_at >= _FRESH_SECONDS:
                self._found = await self._look(runtime)
                self._found_at = self._clock()
            return self._found


async def look(runtime: Runtime) -> Status:
    """Ask each dependency, and how far behind the feed is; never raises."""
    # At once: each waits some seconds for a server that hangs.
    health, feed = await asyncio.gather(runtime.check_health(), _feed(runtime))
    return health.to_json() | feed


async def _feed(runtime: Runtime) -> Status:
    return {} if runtime.sync is None else {"feed": (await runtime.sync.status()).to_json()}


async def healthz(_request: Request) -> JSONResponse:
    """Answer that the process runs, whatever the state of the stores."""
    return JSONResponse({"status": "ok"}, headers=_HEADERS)


async def readyz(request: Request) -> JSONResponse:
    """Answer whether requests should come to this process; 503 when not."""
    status = runtime_of(request).readiness.status
    code = HTTPStatus.OK if status == "ready" else HTTPStatus.SERVICE_UNAVAILABLE
    return JSONResponse({"status": status}, status_code=code, headers=_HEADERS)


def health_routes() -> list[Route]:
    """Make the routes of one application, which remembers what it found last."""
    recent = RecentStatus(look)

    async def status(request: Request) -> Response:
        """Answer the state of each dependency, of background tasks and of the change feed."""
        try:
            authorize(await principal_of(request), Role.ADMIN)
            found = await recent.of(runtime_of(request))
        except Error as error:
            return await refusal(request, error)
        return JSONResponse(found, headers=_HEADERS)

    return [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/api/status", status),
    ]
