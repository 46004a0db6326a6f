"""Compression of text responses."""

from starlette.datastructures import Headers
from starlette.middleware.gzip import GZipMiddleware, IdentityResponder
from starlette.types import ASGIApp, Receive, Scope, Send

from graph.http.accept import accepts_gzip

_MINIMUM_BYTES = 1024
"""Shorter responses fit into one packet without compression."""

_LEVEL = 4
"""zlib's higher levels take twice the time for a tenth less of JSON."""

_NOT_TEXT = (
    "application/dicom",
    "application/octet-stream",
    "application/pdf",
    "application/zip",
    "audio/*",
    "font/*",
    "image/*",
    "model/*",
    "multipart/*",
    "text/event-stream",
    "video/*",
)
"""Media types that are compressed already, or streamed."""


class CompressionMiddleware(GZipMiddleware):
    """Starlette's gzip for text, from 128 KiB in a thread.

    BREACH needs requests to which the victim's browser adds the credential by itself. There are
    none, because the server uses no cookies. See SECURITY.md.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(
            app,
            minimum_size=_MINIMUM_BYTES,
            compresslevel=_LEVEL,
            exclude_content_types=_NOT_TEXT,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Starlette would treat `gzip;q=0` as gzip."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif accepts_gzip(Headers(scope=scope).get("accept-encoding")):
            await super().__call__(scope, receive, send)
        else:
            identity = IdentityResponder(
                self.app, self.minimum_size, exclude_content_types=_NOT_TEXT
            )
            await identity(scope, receive, send)
