"""The absolute address that URLs in answers start with."""

import re
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?", re.ASCII)
_SECURE = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


def base_url_of(connection: HTTPConnection, public_url: str | None) -> str:
    """Return scheme, host and path under which the caller reaches this server.

    Args:
        connection: The request or WebSocket.
        public_url: PUBLIC_URL; it wins over what the request says.

    Returns:
        The address without a slash at its end. A `Host` header that is no host is not repeated:
        then it is the address that the server listens on.
    """
    if public_url is not None:
        return public_url
    scope = connection.scope
    host = connection.headers.get("host", "")
    if not _HOST.fullmatch(host):
        name, port = scope.get("server") or ("127.0.0.1", 80)
        host = name if port is None else f"{name}:{port}"
    return f"{_SECURE[scope['scheme']]}://{host}{scope.get('root_path', '').rstrip('/')}"


def origin_of(url: str) -> str:
    """Return scheme, host and port of an address, as browsers write them in `Origin`."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
