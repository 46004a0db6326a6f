"""Compression of answers that are text."""

from starlette.datastructures import Headers
from starlette.middleware.gzip import GZipMiddleware, IdentityResponder
from starlette.types import ASGIApp, Receive, Scope, Send

from graph.http.accept import accepts_gzip

_MINIMUM_BYTES = 1024
"""Shorter answers fit into one packet as they are."""

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
"""Compressed already, or passed on while it arrives."""


class CompressionMiddleware(GZipMiddleware):
    """Starlette's gzip for text, from 128 KiB in a thread.

    It is safe from BREACH: what an attacker needs for it, requests of a victim's browser that carry
    the victim's credential by themselves, does not exist here, for there are no cookies. See
    SECURITY.md.

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
        """Answer one request; Starlette takes `gzip;q=0` for gzip."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif accepts_gzip(Headers(scope=scope).get("accept-encoding")):
            await super().__call__(scope, receive, send)
        else:
            identity = IdentityResponder(
                self.app, self.minimum_size, exclude_content_types=_NOT_TEXT
            )
            await identity(scope, receive, send)
