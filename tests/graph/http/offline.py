"""The application without MongoDB and Orthanc, for requests that reach neither."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import AsyncMock

import httpx
from starlette.types import Receive, Scope, Send

from graph.app import create_app
from services.audit import Audit
from services.auth.authenticator import Authenticator
from services.query.tree import Trees
from services.settings import Settings
from tests.tokens import cache_of

if TYPE_CHECKING:
    from services.runtime import Runtime


@asynccontextmanager
async def open_app(folder: Path, **given: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Open a client of the application.

    Args:
        folder: The data directory.
        given: Settings.
    """
    settings = Settings(_env_file=None, data_dir=folder, **given)
    runtime = cast(
        "Runtime",
        SimpleNamespace(
            settings=settings,
            readiness=SimpleNamespace(is_stopping=False),
            authenticator=Authenticator(cache_of()),
            audit=AsyncMock(spec=Audit),
            trees=Trees(page_max_size=1, max_seconds=1),
            anonymizations=AsyncMock(),
        ),
    )
    starlette = create_app(settings, runtime=runtime)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"runtime": runtime}
        await starlette(scope, receive, send)

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://localhost"
    ) as http:
        yield http
