"""Health: `/healthz` for the process, `/readyz` for what it depends on."""

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from graph.state import runtime_of
from services.health import check_health
from services.runtime import Runtime


async def healthz(_request: Request) -> JSONResponse:
    """Answer that the process runs; asks nobody else."""
    return JSONResponse({"status": "ok"}, headers={"Cache-Control": "no-store"})


async def readyz(request: Request) -> JSONResponse:
    """Answer each dependency by name, and how far behind the feed is; 503 when one is away."""
    runtime = runtime_of(request)
    # At once: each waits some seconds for a server that hangs.
    health, feed = await asyncio.gather(check_health(runtime), _feed(runtime))
    return JSONResponse(
        health.to_json() | feed,
        status_code=200 if health.is_ready else 503,
        headers={"Cache-Control": "no-store"},
    )


async def _feed(runtime: Runtime) -> dict[str, object]:
    return {} if runtime.sync is None else {"feed": (await runtime.sync.status()).to_json()}


routes = [Route("/healthz", healthz, methods=["GET"]), Route("/readyz", readyz, methods=["GET"])]
