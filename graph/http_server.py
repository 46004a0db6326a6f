"""How uvicorn serves the application: what it reads, whom it believes and what it keeps quiet."""

import uvicorn
from starlette.types import ASGIApp

from graph.bounded_heads import BoundedHeads
from graph.slow_readers import SlowReadersClosed
from services.settings import Settings

_SHUTDOWN_SECONDS = 5
"""Requests that run longer than this after Ctrl-C are cut."""

_WEBSOCKET_MAX_BYTES = 1024 * 1024
"""Messages are GraphQL operations: the same limit as a body's."""


def server_config(
    app: ASGIApp, settings: Settings, *, shutdown_seconds: int = _SHUTDOWN_SECONDS
) -> uvicorn.Config:
    """Configure the HTTP server.

    Args:
        app: The application; its lifespan is run.
        settings: TRUSTED_PROXIES counts.
        shutdown_seconds: Requests that run longer after the end was asked for are cut.
    """
    return uvicorn.Config(
        app,
        # By the stricter of uvicorn's parsers: it refuses a request with two lengths.
        http=BoundedHeads,
        # Left out, uvicorn believes every process of this machine, and FORWARDED_ALLOW_IPS.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        ws=SlowReadersClosed,
        ws_max_size=_WEBSOCKET_MAX_BYTES,
        timeout_graceful_shutdown=shutdown_seconds,
    )
