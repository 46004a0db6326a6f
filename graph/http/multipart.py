"""Reads uploads while they arrive: form fields into memory, files into one temporary file.

All files of a request share one temporary file, so that 1,000 of them need one descriptor. The
system deletes it when it is closed, even after SIGKILL. Threads write it.
"""

import asyncio
import io
import os
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from services.errors import Error, InvalidInput, LimitExceeded
from services.files import FileRangeReader
from services.observability.metrics import UPLOAD_SECONDS, timed
from services.tasks import finish_in_thread


class UploadIdle(Error):
    """The client stopped sending."""

    code = "UPLOAD_IDLE"
    default_message = "The request stopped arriving, so its connection was closed."


class UnsupportedMediaType(Error):
    """The media type of the body is not supported."""

    code = "UNSUPPORTED_MEDIA_TYPE"
    default_message = "Send application/json or multipart/form-data."


def check_content_length(request: Request, max_bytes: int) -> None:
    """Refuse a body by its Content-Length, before its first byte is read.

    Raises:
        LimitExceeded: It is larger than `max_bytes`.
    """
    # The HTTP parser accepts only decimal digits of a 64-bit number.
    if int(request.headers.get("content-length", "0")) > max_bytes:
        raise _too_large(max_bytes)


async def arriving(
    request: Request, *, max_bytes: int, idle_seconds: float
) -> AsyncGenerator[bytes, None]:
    """Yield the body as it arrives, in pieces that are not empty.

    Args:
        request: Its body must not have been read.
        max_bytes: Largest body, in bytes.
        idle_seconds: Longest time without data.

    Raises:
        LimitExceeded: It is larger than `max_bytes`.
        UploadIdle: The client sent nothing for `idle_seconds`.
        InvalidInput: The client disconnected.
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
    """Return the next chunk; b"" at the end."""
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


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A file part: a range of the request's temporary file.

    Valid until the form is closed.

    Attributes:
        field_name: Of the part.
        name: As the client sent it; `""` without one.
        begin: First byte, as an offset into the temporary file.
        size: In bytes.
    """

    field_name: str
    name: str
    begin: int
    size: int
    descriptor: int = field(repr=False)

    def open(self) -> BinaryIO:
        """Open it for reading, seekable; may be opened more than once, in any thread."""
        return io.BufferedReader(FileRangeReader(self.descriptor, self.begin, self.size))


_FIELD_MAX_BYTES = 1024 * 1024
_MAX_FIELDS = 16
_HEADER_MAX_BYTES = 16 * 1024
_WRITE_BYTES = 1024 * 1024
"""Bytes that are collected before a thread writes them: a switch costs as much as 100 kB."""
_PIECE_BYTES = 16 * 1024
"""Shorter pieces are joined, so that one call writes few of them however small they arrive."""


class UploadNotKept(Error):
    """The local disk can't store an upload."""

    code = "UPLOAD_NOT_KEPT"
    default_message = "The server could not keep this upload. Is its disk full?"


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadLimits:
    """Limits of one upload request.

    Attributes:
        max_bytes: Largest body, in bytes.
        max_files: Most parts with a file name.
        idle_seconds: Longest time without data.
    """

    max_bytes: int
    max_files: int
    idle_seconds: float


@dataclass(frozen=True, slots=True)
class Form:
    """A form that was read completely."""

    fields: dict[str, str]
    files: tuple[UploadedFile, ...]


@asynccontextmanager
async def read_related(
    request: Request, limits: UploadLimits, *, part_type: str
) -> AsyncIterator[tuple[UploadedFile, ...]]:
    """Read a multipart/related body (RFC 2387), every part of which is a file.

    Args:
        request: Its body must not have been read.
        limits: Limits of the body.
        part_type: Media type of the parts.

    Raises:
        Error: As `read_form`; UnsupportedMediaType also for parts of another type.
    """
    check_content_length(request, limits.max_bytes)
    content_type, options = parse_options_header(request.headers.get("content-type"))
    asked = options.get(b"type", part_type.encode())
    if content_type != b"multipart/related" or asked.lower() != part_type.encode():
        raise UnsupportedMediaType(f'Send multipart/related; type="{part_type}".')
    if not options.get(b"boundary"):
        raise InvalidInput("Send multipart/related with a boundary.")
    with tempfile.TemporaryFile(buffering=0) as spool:
        parts = _RelatedParts(spool.fileno(), limits, part_type)
        await _receive(request, parts, limits, options[b"boundary"])
        yield tuple(parts.files)


@asynccontextmanager
async def read_form(request: Request, limits: UploadLimits) -> AsyncIterator[Form]:
    """Read a multipart/form-data body (RFC 7578); its files live as long as the context.

    Raises:
        LimitExceeded: The body is too large or has too many files.
        UploadIdle: No data arrived for `limits.idle_seconds`.
        UploadNotKept: The disk can't store it.
        UnsupportedMediaType: It is not multipart/form-data.
        InvalidInput: It has no boundary, is malformed or was cut off.
    """
    check_content_length(request, limits.max_bytes)
    with tempfile.TemporaryFile(buffering=0) as spool:
        parts = _Parts(spool.fileno(), limits)
        await _receive(request, parts, limits, _boundary(request))
        yield Form(parts.fields, tuple(parts.files))


_PLAIN_TYPES = frozenset(
    {b"", b"application/dicom", b"application/octet-stream", b"application/zip"}
)


@asynccontextmanager
async def read_plain(request: Request, limits: UploadLimits) -> AsyncIterator[UploadedFile]:
    """Read a body that is one file without a form; it lives as long as the context.

    Raises:
        Error: As `read_form`.
    """
    check_content_length(request, limits.max_bytes)
    content_type, _ = parse_options_header(request.headers.get("content-type"))
    if content_type not in _PLAIN_TYPES:
        raise UnsupportedMediaType("Send application/dicom, application/zip or no type.")
    body = arriving(request, max_bytes=limits.max_bytes, idle_seconds=limits.idle_seconds)
    with tempfile.TemporaryFile(buffering=0) as spool:
        parts = _PlainBody(spool.fileno(), limits)
        with timed(UPLOAD_SECONDS, "receive"):
            async with aclosing(body):
                async for chunk in body:
                    parts.data(chunk, 0, len(chunk))
                    if parts.is_flush_due:
                        await parts.flush()
        parts.end()
        await parts.flush()
        yield parts.files[0]


async def _receive(
    request: Request, parts: "_Parts", limits: UploadLimits, boundary: bytes
) -> None:
    parser = _parser(boundary, parts)
    body = arriving(request, max_bytes=limits.max_bytes, idle_seconds=limits.idle_seconds)
    try:
        with timed(UPLOAD_SECONDS, "receive"):
            async with aclosing(body):
                async for chunk in body:
                    parser.write(chunk)
                    if parts.is_flush_due:
                        await parts.flush()
        parser.finalize()
    except FormParserError as exc:
        raise _malformed() from exc
    if not parts.is_finished:
        raise _malformed()
    await parts.flush()


def _parser(boundary: bytes, parts: "_Parts") -> MultipartParser:
    try:
        return MultipartParser(
            boundary,
            {
                "on_part_begin": parts.begin,
                "on_header_field": parts.header_name,
                "on_header_value": parts.header_value,
                "on_header_end": parts.header_end,
                "on_headers_finished": parts.headers_end,
                "on_part_data": parts.data,
                "on_part_end": parts.end,
                "on_end": parts.finish,
            },
        )
    except FormParserError as exc:
        message = "The boundary of the form is too long; RFC 2046 allows 70 characters."
        raise InvalidInput(message) from exc


def _boundary(request: Request) -> bytes:
    content_type, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if content_type != b"multipart/form-data":
        raise UnsupportedMediaType("Send multipart/form-data.")
    if not boundary:
        raise InvalidInput("Send multipart/form-data with a boundary.")
    return boundary


class _Parts:
    """The callbacks of the parser: they collect data; `flush` writes it."""

    def __init__(self, descriptor: int, limits: UploadLimits) -> None:
        self.fields: dict[str, str] = {}
        self.files: list[UploadedFile] = []
        self.is_finished = False
        self._unwritten: list[memoryview | bytearray] = []
        self._unwritten_bytes = 0
        self._descriptor = descriptor
        self._limits = limits
        self._position = 0
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._content_type = b""
        self._field_name = ""
        self._file_name: str | None = None
        self._value = bytearray()
        self._file_begin = 0

    @property
    def is_flush_due(self) -> bool:
        return self._unwritten_bytes >= _WRITE_BYTES

    async def flush(self) -> None:
        """Write the collected data, in a thread.

        Raises:
            UploadNotKept: The disk can't store it.
        """
        pieces, self._unwritten, self._unwritten_bytes = self._unwritten, [], 0
        if pieces:
            try:
                await finish_in_thread(partial(_write_all, self._descriptor, pieces))
            except OSError as exc:
                raise UploadNotKept(detail=type(exc).__name__) from exc

    def begin(self) -> None:
        self._disposition = self._content_type = b""
        self._value = bytearray()
        self._file_begin = self._position

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._extend_header(0, data[start:end])

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._extend_header(1, data[start:end])

    def header_end(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = bytes(value)
        elif name.lower() == b"content-type":
            self._content_type = bytes(value)
        self._header = (bytearray(), bytearray())

    def headers_end(self) -> None:
        self._name_part()
        if self._file_name is not None and len(self.files) >= self._limits.max_files:
            raise LimitExceeded(f"One upload may have {self._limits.max_files} files.")
        if self._file_name is None and len(self.fields) >= _MAX_FIELDS:
            raise LimitExceeded(f"One upload may have {_MAX_FIELDS} fields besides its files.")

    def _name_part(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise InvalidInput("A part of the form has no name.")
        self._field_name = options[b"name"].decode("utf-8", "replace")
        file_name = options.get(b"filename")
        self._file_name = None if file_name is None else file_name.decode("utf-8", "replace")

    def data(self, data: bytes, start: int, end: int) -> None:
        if self._file_name is not None:
            self._collect(memoryview(data)[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > _FIELD_MAX_BYTES:
            raise LimitExceeded(f"A field of the form may have {_FIELD_MAX_BYTES} bytes.")

    def end(self) -> None:
        if self._file_name is None:
            # Decode strictly: a wrongly guessed encoding would write a wrong patient name.
            try:
                self.fields[self._field_name] = self._value.decode()
            except UnicodeDecodeError as exc:
                raise InvalidInput("The text of a form's field must be UTF-8.") from exc
            return
        size = self._position - self._file_begin
        self.files.append(
            UploadedFile(
                self._field_name, self._file_name, self._file_begin, size, self._descriptor
            )
        )

    def finish(self) -> None:
        self.is_finished = True

    def _collect(self, piece: memoryview) -> None:
        self._unwritten_bytes += len(piece)
        self._position += len(piece)
        if len(piece) >= _PIECE_BYTES:
            self._unwritten.append(piece)
        elif self._unwritten and isinstance(last := self._unwritten[-1], bytearray):
            last += piece
        else:
            self._unwritten.append(bytearray(piece))

    def _extend_header(self, index: int, data: bytes) -> None:
        self._header[index].extend(data)
        if len(self._header[index]) > _HEADER_MAX_BYTES:
            raise LimitExceeded("A header of a part of the form is too long.")


class _PlainBody(_Parts):
    """One file without a name."""

    def __init__(self, descriptor: int, limits: UploadLimits) -> None:
        super().__init__(descriptor, limits)
        self._file_name = ""


class _RelatedParts(_Parts):
    """Parts without names: every one is a file."""

    def __init__(self, descriptor: int, limits: UploadLimits, part_type: str) -> None:
        super().__init__(descriptor, limits)
        self._part_type = part_type

    def _name_part(self) -> None:
        media_type, _ = parse_options_header(self._content_type)
        if media_type and media_type != self._part_type.encode():
            raise UnsupportedMediaType(f"Every part of this is {self._part_type}.")
        self._file_name = f"part {len(self.files) + 1}"


def _write_all(descriptor: int, pieces: Sequence[memoryview | bytearray]) -> None:
    left = [memoryview(piece) for piece in pieces]
    while left:
        written = os.writev(descriptor, left)
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if written:
            left[0] = left[0][written:]


def _malformed() -> InvalidInput:
    return InvalidInput("The multipart body is malformed or was cut off.")
