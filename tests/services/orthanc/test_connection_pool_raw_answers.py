"""What a broken or hostile server may answer: never a cut-off body, never a second request."""

import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.errors import OrthancOutcomeUnknown
from services.orthanc import connection_pool
from services.orthanc.connection_pool import ConnectionPool

_BEGINNING = b"HTTP/1.1 200 OK\r\n"


class Server:
    """Answers the first request of each connection with bytes, further ones with `next`."""

    def __init__(self) -> None:
        self.content = b""
        self.closes = False
        self.connections = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                opened, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._converse, args=(opened,)).start()

    def _converse(self, opened: socket.socket) -> None:
        answers = [self.content]
        with opened:
            while opened.recv(65_536):
                opened.sendall(answers.pop() if answers else _next())
                if self.closes:
                    return


def _next() -> bytes:
    return _BEGINNING + b"Content-Length: 4\r\n\r\nnext"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with closing(Server()) as running:
        yield running


@contextmanager
def answering(server: Server, content: bytes, *, closes: bool = False) -> Iterator[ConnectionPool]:
    server.content, server.closes, server.connections = content, closes, 0
    with closing(ConnectionPool(server.url, "", "", timeout_seconds=5)) as connections:
        yield connections


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [*parts, b""])


@given(body=st.binary(max_size=100), size=st.integers(1, 20))
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_body_ends_where_its_length_or_its_last_chunk_says(
    body: bytes, size: int, server: Server
) -> None:
    by_length = _BEGINNING + b"Content-Length: %d\r\n\r\n" % len(body) + body
    by_chunks = _BEGINNING + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body, size)
    for content in (by_length, by_chunks):
        with answering(server, content) as connections:
            assert [connections.get("/a"), connections.get("/b")] == [body, b"next"]
        assert server.connections == 1


def test_a_body_without_a_length_ends_with_the_connection(server: Server) -> None:
    content = _BEGINNING + b"\r\nall\r\n\r\nof it"
    with answering(server, content, closes=True) as connections:
        assert connections.get("/") == b"all\r\n\r\nof it"


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body_end_with_their_fields(status: int, server: Server) -> None:
    with answering(server, b"HTTP/1.1 %d \r\n\r\n" % status) as connections:
        if status == 204:
            assert connections.get("/a") == b""
        else:
            with pytest.raises(Exception, match="Orthanc answered"):
                connections.get("/a")
        assert connections.get("/b") == b"next"
    assert server.connections == 1


def test_an_interim_answer_is_passed_over(server: Server) -> None:
    content = b"HTTP/1.1 100 Continue\r\n\r\n" + _BEGINNING + b"content-length:4 \r\n\r\nbody"
    with answering(server, content) as connections:
        assert [connections.get("/a"), connections.get("/b")] == [b"body", b"next"]


@pytest.mark.parametrize(
    ("version", "field", "connection_count"),
    [
        (1, b"Connection: keep-alive", 1),
        (1, b"Connection: Upgrade, CLOSE", 2),
        (0, b"Server: old", 2),
        (0, b"Connection: Keep-Alive", 1),
    ],
)
def test_a_connection_ends_when_the_version_or_a_field_says_so(
    version: int, field: bytes, connection_count: int, server: Server
) -> None:
    head = b"HTTP/1.%d 200 OK\r\n%b\r\nContent-Length: 4\r\n\r\nbody" % (version, field)
    with answering(server, head) as connections:
        assert connections.get("/a") == b"body"
        server.content = _next()
        assert connections.get("/b") == b"next"
    assert server.connections == connection_count


def test_extensions_and_trailers_of_chunks_are_passed_over(server: Server) -> None:
    body = b"A;name=value\r\n0123456789\r\n0 \r\nDigest: x\r\n\r\n"
    content = _BEGINNING + b"Transfer-Encoding: Chunked\r\n\r\n" + body
    with answering(server, content) as connections:
        assert [connections.get("/a"), connections.get("/b")] == [b"0123456789", b"next"]


@pytest.mark.parametrize(
    "content",
    [
        b"HTTP/1.1 200 OK",
        _BEGINNING,
        _BEGINNING + b"Content-Le",
        _BEGINNING + b"Content-Length: 4\r\n\r\nbod",
        _BEGINNING + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbo",
        _BEGINNING + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n",
        _BEGINNING + b"Content-Length: 999999999999999999\r\n\r\nbody",
        _BEGINNING + b"Transfer-Encoding: chunked\r\n\r\n7FFFFFFFFFFFFFF\r\nbody",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        _BEGINNING + b"A" * 70_000 + b": b\r\n\r\n",
        _BEGINNING + b"A: b\r\n" * 101 + b"\r\n",
        _BEGINNING + b"Content-Length: 4\r\nContent-Length: 3\r\n\r\nbody",
        _BEGINNING + b"Transfer-Encoding: chunked\r\n\r\nsize\r\nbody\r\n0\r\n\r\n",
    ],
)
def test_an_answer_that_is_cut_off_or_is_no_http_leaves_the_outcome_unknown(
    content: bytes, server: Server
) -> None:
    with (
        answering(server, content, closes=True) as connections,
        pytest.raises(OrthancOutcomeUnknown),
    ):
        connections.get("/")
    assert server.connections == 1


def test_no_memory_is_allocated_for_what_is_only_announced(server: Server) -> None:
    content = _BEGINNING + b"Content-Length: 999999999999\r\n\r\nbody"
    with answering(server, content, closes=True) as connections:
        tracemalloc.start()
        try:
            with pytest.raises(OrthancOutcomeUnknown):
                connections.get("/")
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak_bytes < 2 * connection_pool._AT_ONCE_BYTES


def test_a_long_body_is_read_to_its_end(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_pool, "_AT_ONCE_BYTES", 3)
    with answering(server, _BEGINNING + b"Content-Length: 7\r\n\r\n0123456") as connections:
        assert [connections.get("/a"), connections.get("/b")] == [b"0123456", b"next"]


@pytest.mark.parametrize("field", [b"A: x%bx\r\n", b"A:%bx%b\t\r\n", b"A: %b\r\n"])
def test_spaces_in_a_field_cost_no_time(field: bytes, server: Server) -> None:
    field = field.replace(b"%b", b" " * 30_000)
    with answering(server, _BEGINNING + field + b"Content-Length: 0\r\n\r\n") as connections:
        began = time.thread_time()
        assert connections.get("/") == b""
        assert time.thread_time() - began < 1
