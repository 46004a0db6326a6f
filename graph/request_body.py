"""Read a body while it arrives: never more than is allowed, and not from who stops sending."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from starlette.requests import ClientDisconnect, Request

from services.errors import Error, InvalidInput, LimitExceeded


class UploadIdle(Error):
    """The sender stopped sending."""

    code = "UPLOAD_IDLE"
    default_message = "The request stopped arriving and was cut."


class UnsupportedMediaType(Error):
    """The body is of a media type that is not read here."""

    code = "UNSUPPORTED_MEDIA_TYPE"
    default_message = "Send application/json or multipart/form-data."


def check_content_length(request: Request, max_bytes: int) -> None:
    """Refuse a body that says itself that it is too large, before its first byte is read.

    Raises:
        LimitExceeded: It is larger than `max_bytes`.
    """
    # The server's parser lets nothing but decimal digits of a 64-bit number pass.
    if int(request.headers.get("content-length", "0")) > max_bytes:
        raise _too_large(max_bytes)


async def arriving(
    request: Request, *, max_bytes: int, idle_seconds: float
) -> AsyncGenerator[bytes, None]:
    """Yield the body as it arrives, in pieces that are not empty.

    Args:
        request: Nothing of its body was read.
        max_bytes: Of the whole body.
        idle_seconds: Longest silence.

    Raises:
        LimitExceeded: It is larger than `max_bytes`.
        UploadIdle: Nothing came for `idle_seconds`.
        InvalidInput: Its sender went away.
    """
    check_content_length(request, max_bytes)
    received = 0
    async with aclosing(request.stream()) as stream:
        while chunk := await _next_chunk(stream, idle_seconds):
            received += len(chunk)
            if received > max_bytes:
                raise _too_large(max_bytes)
            yield chunk


async def read_body(request: Request, *, max_bytes: int, idle_seconds: float) -> bytes:
    """Read a whole body into memory.

    Raises:
        Error: As `arriving`.
    """
    body = bytearray()
    chunks = arriving(request, max_bytes=max_bytes, idle_seconds=idle_seconds)
    async with aclosing(chunks):
        async for chunk in chunks:
            body += chunk
    return bytes(body)


async def _next_chunk(stream: AsyncIterator[bytes], idle_seconds: float) -> bytes:
    """Return b"" at the end."""
    try:
        async with asyncio.timeout(idle_seconds):
            async for chunk in stream:
                if chunk:
                    return chunk
    except TimeoutError as exc:
        raise UploadIdle from exc
    except ClientDisconnect as exc:
        raise InvalidInput("The request was cut off.") from exc
    return b""


def _too_large(max_bytes: int) -> LimitExceeded:
    return LimitExceeded(f"The body of this request may have {max_bytes} bytes.")
