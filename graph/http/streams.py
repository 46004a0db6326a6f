"""Responses that are streamed while their data arrives."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from http import HTTPStatus

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from graph.http.client_slots import ClientSlots

ZIP = "application/zip"


def attachment_headers(file_name: str) -> dict[str, str]:
    """Return the headers of a download by a signed URL.

    Args:
        file_name: Suggested to the client, in ASCII.
    """
    return {
        "Content-Disposition": f'attachment; filename="{file_name}"',
        "Cache-Control": "private, no-store",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }


_TURN_SECONDS = 5.0
"""Longest wait of a file for its turn: viewers ask for several at once, and each is short."""


async def in_turn(
    parts: AsyncGenerator[bytes, None], slots: ClientSlots, scope: Scope
) -> AsyncGenerator[bytes, None]:
    """Yield the parts of a file while its client holds one of its downloads.

    Raises:
        TooManyRequests: The client waited for one in vain.
    """
    async with aclosing(parts), slots.turn(scope, seconds=_TURN_SECONDS):
        async for part in parts:
            yield part


class PassedOn(StreamingResponse):
    """Sends what a generator yields, and closes the generator with the response."""

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
        """Send the response."""
        async with aclosing(self._parts):
            await super().__call__(scope, receive, send)


async def passed_on(
    parts: AsyncGenerator[bytes, None],
    *,
    status: int = HTTPStatus.OK,
    headers: Mapping[str, str],
    media_type: str,
) -> Response:
    """Begin a streamed response; an error before its first bytes is raised, and gets a status.

    A later error breaks the connection, so that a partial response never looks complete.

    Raises:
        Error: As the generator, before its first bytes.
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
