"""Clients of servers on this machine."""

from typing import Any

import httpx

from services.orthanc.transport import tls_context
from tests.patience import PATIENCE_SECONDS


def http_client(url: str, **more: Any) -> httpx.AsyncClient:
    """Make a client of a server, which may be busy; `more` as in httpx."""
    patient = {"timeout": PATIENCE_SECONDS, "verify": tls_context(), **more}
    return httpx.AsyncClient(base_url=url, trust_env=False, **patient)
