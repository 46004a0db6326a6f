"""The HTTP application: routes, middleware and lifespan, in one place."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route, WebSocketRoute

from graph.authentication import SHARE_PARAMETER, principal_of_share
from graph.dicomweb.exchange import Mount
from graph.dicomweb.routes import dicomweb_routes
from graph.execution.limits import OperationLimits
from graph.http.client_slots import ClientSlots
from graph.http.compression import CompressionMiddleware
from graph.http.cors import EXPOSED_HEADERS, REQUEST_HEADERS, AllowedOrigins, CrossOriginMiddleware
from graph.http.endpoint import GraphQLEndpoint
from graph.http.errors import routing_refusal
from graph.http.middleware import (
    EarlyResponseMiddleware,
    LocalHostMiddleware,
    RequestContextMiddleware,
    unexpected_error,
)
from graph.http.trusted_documents import read_trusted_documents, warn_of_invalid
from graph.routes import (
    archives,
    dicom_api,
    files,
    frames,
    health,
    orthanc_events,
    shares,
    web,
)
from graph.schema import build_schema
from graph.state import State
from graph.web.documents import page_documents
from services.runtime import Runtime, open_runtime
from services.settings import Settings

_PREFLIGHT_SECONDS = 600
"""Browsers ask again after this time: short enough for changed settings to arrive."""


def create_app(settings: Settings, *, runtime: Runtime | None = None) -> Starlette:
    """Create the application.

    Args:
        settings: All settings.
        runtime: Services that are already open; None: the lifespan opens them.
    """

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[State]:
        opened: AbstractAsyncContextManager[Runtime] = (
            open_runtime(settings) if runtime is None else nullcontext(runtime)
        )
        async with opened as services:
            yield State(runtime=services)

    origins = AllowedOrigins.from_settings(settings)
    cors = _cors(origins, settings.cors_allowed_headers)
    return Starlette(
        routes=_routes(settings, origins),
        middleware=[
            # Outermost first. This one must see the last message of every response, including
            # refusals of the middleware below.
            Middleware(EarlyResponseMiddleware),
            # Before any middleware that can refuse: refusals are logged with a correlation id.
            # Unhandled exceptions bypass the CORS middleware below: the 500 response gets its own.
            Middleware(
                RequestContextMiddleware, unexpected=CrossOriginMiddleware(unexpected_error, **cors)
            ),
            # Before CORS: a page behind a foreign `Host` must not pass a preflight either.
            Middleware(LocalHostMiddleware, settings.allowed_hosts),
            Middleware(CrossOriginMiddleware, **cors),
            # Requests for pictures skip the router and the middleware below.
            Middleware(frames.FrameRouteShortcut),
            Middleware(CompressionMiddleware),
        ],
        exception_handlers={HTTPException: routing_refusal},
        lifespan=lifespan,
    )


def _routes(settings: Settings, origins: AllowedOrigins) -> list[BaseRoute]:
    schema = build_schema(settings)
    documents = read_trusted_documents(
        settings.trusted_documents_file, only=settings.trusted_documents_only
    )
    warn_of_invalid(documents, schema._schema)  # noqa: SLF001  # where Strawberry keeps it
    if documents.is_configured:
        documents = documents.with_own(page_documents())
    endpoint = GraphQLEndpoint(
        schema,
        origins=origins,
        limits=OperationLimits.from_settings(settings),
        body_max_bytes=settings.graphql_body_max_bytes,
        body_idle_seconds=settings.upload_idle_seconds,
        websockets_per_client=settings.websockets_per_client,
        documents=documents,
    )
    # One count for all of them, because they share the connections to Orthanc.
    downloads = ClientSlots(
        "downloads", settings.archives_per_client, setting="ARCHIVES_PER_CLIENT"
    )
    shared = Mount(f"/s/{{{SHARE_PARAMETER}}}/dicomweb", identify=principal_of_share)
    return [
        # Routes are tried in this order; pictures are requested most often.
        *frames.routes,
        Route("/graphql", endpoint),
        WebSocketRoute("/graphql", endpoint),
        *archives.archive_routes(downloads),
        *files.file_routes(downloads),
        *dicom_api.routes,
        *dicomweb_routes(slots=downloads),
        *health.health_routes(),
        *orthanc_events.routes,
        *shares.routes,
        *dicomweb_routes(shared, slots=downloads),
        *web.routes,
    ]


def _cors(origins: AllowedOrigins, further_headers: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of `CrossOriginMiddleware`."""
    return {
        "allow_origins": origins.origins,
        "allow_origin_regex": origins.pattern,
        "allow_methods": ["GET", "HEAD", "POST", "OPTIONS"],
        "allow_headers": [*REQUEST_HEADERS, *further_headers],
        "expose_headers": EXPOSED_HEADERS,
        "max_age": _PREFLIGHT_SECONDS,
    }
