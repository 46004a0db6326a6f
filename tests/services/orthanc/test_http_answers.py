import io
import time
from http.client import HTTPException, IncompleteRead

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.orthanc import connection_pool as http_answers
from services.orthanc.connection_pool import Answer, read_answer

_BEGINNING = b"HTTP/1.1 200 OK\r\n"


def read(content: bytes) -> tuple[Answer, bytes]:
    """Return the answer and what is left behind it."""
    stream = io.BytesIO(content)
    return read_answer(stream), stream.read()


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [*parts, b""])


@given(st.binary(max_size=100), st.integers(1, 20), st.binary(max_size=10))
def test_a_body_ends_where_its_length_or_its_last_chunk_says(
    body: bytes, size: int, after: bytes
) -> None:
    by_length = _BEGINNING + b"Content-Length: %d\r\n\r\n" % len(body) + body
    by_chunks = _BEGINNING + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body, size)
    for content in (by_length, by_chunks):
        assert read(content + after) == (Answer(200, body, is_last=False), after)


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    assert read(_BEGINNING + b"\r\nall\r\n\r\nof it") == (
        Answer(200, b"all\r\n\r\nof it", is_last=True),
        b"",
    )


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body_end_with_their_fields(status: int) -> None:
    content = b"HTTP/1.1 %d \r\nContent-Length: 4\r\n\r\nnext" % status
    assert read(content) == (Answer(status, b"", is_last=False), b"next")


def test_interim_answers_are_passed_over() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103\r\nLink: <a>\r\n\r\n"
    content = interim + b"HTTP/1.1 404 Not Found\r\ncontent-length:4 \r\n\r\nbody"
    assert read(content) == (Answer(404, b"body", is_last=False), b"")


@pytest.mark.parametrize(
    ("version", "field", "is_last"),
    [
        (1, b"Connection: keep-alive", False),
        (1, b"Connection: Upgrade, CLOSE", True),
        (1, b"Connection: upgrade\r\nconnection: close", True),
        (0, b"Server: old", True),
        (0, b"Connection: Keep-Alive", False),
        (1, b"Transfer-Encoding: chunked", True),
    ],
)
def test_a_connection_ends_when_the_version_or_a_field_says_so(
    version: int, field: bytes, *, is_last: bool
) -> None:
    head = b"HTTP/1.%d 200 OK\r\n%b\r\nContent-Length: 5\r\n\r\n" % (version, field)
    answer, _ = read(head + b"0\r\n\r\n")
    assert answer.is_last is is_last


def test_extensions_and_trailers_of_chunks_are_passed_over() -> None:
    body = b"A;name=value\r\n0123456789\r\n0 \r\nDigest: x\r\n\r\n"
    content = _BEGINNING + b"Transfer-Encoding: Chunked\r\n\r\n" + body
    assert read(content + b"next") == (Answer(200, b"0123456789", is_last=False), b"next")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"HTTP/1.1 200 OK",
        _BEGINNING,
        _BEGINNING + b"Content-Length: 4\r\n\r\nbod",
        _BEGINNING + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbo",
        _BEGINNING + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n",
        _BEGINNING + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n",
    ],
)
def test_an_answer_that_is_cut_off_is_no_answer(content: bytes) -> None:
    with pytest.raises((HTTPException, ConnectionError)):
        read(content)


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 999999999999999999\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n7FFFFFFFFFFFFFF\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n",
    ],
)
def test_no_memory_is_set_aside_for_what_was_only_announced(head: bytes) -> None:
    stream = io.BufferedReader(io.BytesIO(_BEGINNING + head + b"body"))
    with pytest.raises(IncompleteRead):
        read_answer(stream)


def test_a_long_body_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_answers, "_AT_ONCE_BYTES", 3)
    content = _BEGINNING + b"Content-Length: 7\r\n\r\n0123456next"
    assert read(content) == (Answer(200, b"0123456", is_last=False), b"next")


@pytest.mark.parametrize("field", [b"A: x%bx\r\n", b"A:%bx%b\t\r\n", b"A: %b\r\n"])
def test_spaces_in_a_field_cost_no_time(field: bytes) -> None:
    field = field.replace(b"%b", b" " * 30_000)
    began = time.process_time()
    assert read(_BEGINNING + field + b"Content-Length: 0\r\n\r\n")[0].status == 200
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "content",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        _BEGINNING + b"no field\r\n\r\n",
        _BEGINNING + b"A: b\r\n folded\r\n\r\n",
        _BEGINNING + b"A" * 70_000 + b": b\r\n\r\n",
        _BEGINNING + b"A: b\r\n" * 101 + b"\r\n",
        _BEGINNING + b"Content-Length: -4\r\n\r\nbody",
        _BEGINNING + b"Content-Length: 4\r\nContent-Length: 3\r\n\r\nbody",
        _BEGINNING + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        _BEGINNING + b"Transfer-Encoding: chunked\r\n\r\n+4\r\nbody\r\n0\r\n\r\n",
        _BEGINNING + b"Transfer-Encoding: chunked\r\n\r\n3\r\nbody\r\n0\r\n\r\n",
        _BEGINNING + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 101 + b"\r\n",
    ],
)
def test_what_is_no_http_is_refused(content: bytes) -> None:
    with pytest.raises(HTTPException):
        read(content)
