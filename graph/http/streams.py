"""Answers that are passed on while they arrive."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from http import HTTPStatus

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

ZIP = "application/zip"


def attachment_headers(file_name: str) -> dict[str, str]:
    """Return the headers of a download that a signed URL leads to.

    Args:
        file_name: In ASCII, for the client to save it by.
    """
    return {
        "Content-Disposition": f'attachment; filename="{file_name}"',
        "Cache-Control": "private, no-store",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }


class PassedOn(StreamingResponse):
    """Sends what a generator yields; whatever the generator holds is closed with the answer."""

    def __init__(
        self,
        parts: AsyncGenerator[bytes, None],
        first: bytes,
        *,
        status: int = HTTPStatus.OK,
        headers: Mapping[str, str],
        media_type: str,
    ) -> None:
        super().__init__(_chained(first, parts), status, headers, media_type)
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        async with aclosing(self._parts):
            await super().__call__(scope, receive, send)


async def passed_on(
    parts: AsyncGenerator[bytes, None],
    *,
    status: int = HTTPStatus.OK,
    headers: Mapping[str, str],
    media_type: str,
) -> Response:
    """Begin an answer: what goes wrong before its first bytes is an error with a status.

    What goes wrong later breaks the connection, so that half an answer never looks complete.

    Raises:
        Error: Whatever the generator raises first.
    """
    try:
        first = await anext(parts, b"")
    except BaseException:
        await parts.aclose()
        raise
    return PassedOn(parts, first, status=status, headers=headers, media_type=media_type)


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in rest:
        yield part
