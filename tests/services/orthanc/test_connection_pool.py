import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from services.errors import (
    FileRejected,
    OrthancAuthenticationFailed,
    OrthancBusy,
    OrthancError,
    OrthancNotFound,
    OrthancOutcomeUnknown,
    OrthancTimedOut,
    OrthancUnavailable,
)
from services.files import FileRange
from services.orthanc.connection_pool import ConnectionPool
from tests.patience import PATIENCE_SECONDS


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.client_address[1], dict(self.headers)))
        name = self.path.rsplit("/", 1)[-1]
        if name == "slow":
            self.server.released.wait(5)
        if name == "broken":
            self.close_connection = True
            return
        status = int(name) if name.isdigit() else 200
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        if name == "close":
            self.send_header("Connection", "close")
        self.send_header("Content-Length", "100" if name == "short" else "4")
        self.end_headers()
        self.wfile.write(b"body")
        # The server says nothing about it: as an Orthanc whose connection times out.
        self.close_connection = name in ("short", "last")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != "/echo":
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, int, dict[str, str]]] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.released.set()
        running.shutdown()
        thread.join()


@contextmanager
def connected(url: str, timeout_seconds: float = 5) -> Iterator[ConnectionPool]:
    with closing(
        ConnectionPool(url, "ü", "secret", timeout_seconds=timeout_seconds)
    ) as connections:
        yield connections


def test_one_connection_serves_one_request_after_another(server: Server) -> None:
    with connected(f"{server.url}/orthanc/") as connections:
        assert [connections.get(path) for path in ("/a", "/b?c=d")] == [b"body", b"body"]
    assert [path for path, _, _ in server.asked] == ["/orthanc/a", "/orthanc/b?c=d"]
    assert len({port for _, port, _ in server.asked}) == 1
    assert server.asked[0][2] == {
        "Host": server.url.removeprefix("http://"),
        "Accept-Encoding": "identity",
        "Authorization": "Basic w7w6c2VjcmV0",
    }


def test_a_path_that_would_cut_the_request_is_not_sent(server: Server) -> None:
    with connected(server.url) as connections:
        for path in ("/a b", "/a\r\nX: y", "/ü", "/\x7f"):
            with pytest.raises(OrthancOutcomeUnknown):
                connections.get(path)
    assert server.asked == []


def test_a_connection_that_the_answer_closes_is_opened_anew(server: Server) -> None:
    with connected(server.url) as connections:
        assert [connections.get("/close"), connections.get("/next")] == [b"body", b"body"]
    assert len({port for _, port, _ in server.asked}) == 2


def test_threads_that_ask_at_once_have_a_connection_each(server: Server) -> None:
    with connected(server.url) as connections, ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(connections.get, "/slow") for _ in range(2)]
        wait_until(lambda: len(server.asked) == 2)
        server.released.set()
        assert [one.result() for one in waiting] == [b"body", b"body"]
    assert len({port for _, port, _ in server.asked}) == 2


def test_a_connection_that_was_closed_meanwhile_is_opened_anew(server: Server) -> None:
    with connected(server.url) as connections:
        connections.get("/last")
        time.sleep(0.1)
        assert connections.get("/next") == b"body"
    assert len({port for _, port, _ in server.asked}) == 2


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (302, OrthancError),
        (401, OrthancAuthenticationFailed),
        (404, OrthancNotFound),
        (500, OrthancError),
        (503, OrthancBusy),
    ],
)
def test_statuses_are_errors_and_redirects_are_not_followed(
    status: int, error: type[OrthancError], server: Server
) -> None:
    with connected(server.url) as connections:
        with pytest.raises(error) as raised:
            connections.get(f"/{status}")
        assert connections.get("/after") == b"body"
    assert type(raised.value) is error
    assert [path for path, _, _ in server.asked] == [f"/{status}", "/after"]


@pytest.mark.parametrize("path", ["/broken", "/short"])
def test_a_connection_that_breaks_leaves_the_outcome_unknown_and_asks_once(
    path: str, server: Server
) -> None:
    with connected(server.url) as connections:
        connections.get("/first")
        with pytest.raises(OrthancOutcomeUnknown) as raised:
            connections.get(path)
    assert not isinstance(raised.value, OrthancTimedOut)
    assert [asked for asked, _, _ in server.asked] == ["/first", path]


@pytest.mark.parametrize(
    "fault", [OSError("unreadable"), TimeoutError("of the disk"), ValueError()]
)
def test_a_source_that_cannot_be_read_is_no_fault_of_orthanc(
    fault: Exception, server: Server
) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"beginning"
        raise fault

    with connected(server.url) as connections:
        with pytest.raises(type(fault)) as raised:
            connections.post("/instances", chunks(), 100)
        assert raised.value is fault
        assert connections.get("/after") == b"body"


def test_a_file_that_ends_early_is_no_fault_of_orthanc(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with connected(server.url) as connections, path.open("rb") as file:
        with pytest.raises(FileRejected) as raised:
            connections.post("/instances", [b"head", FileRange(file.fileno(), 2, 100)], 102)
        assert raised.value.code == "TRUNCATED"
        sent: list[bytes | FileRange] = [b"<", FileRange(file.fileno(), 2, 5), b">"]
        assert connections.post("/echo", sent, 5) == b"<nte>"


def test_silence_is_a_time_out(server: Server) -> None:
    with connected(server.url, 0.05) as connections, pytest.raises(OrthancTimedOut):
        connections.get("/slow")


def test_nobody_listening_is_unavailable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with connected(url) as connections, pytest.raises(OrthancUnavailable) as raised:
            connections.get("/")
    assert not isinstance(raised.value, OrthancOutcomeUnknown)


def test_closing_breaks_off_what_is_under_way(server: Server) -> None:
    with connected(server.url) as connections, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(connections.get, "/slow")
        wait_until(lambda: bool(server.asked))
        connections.close()
        with pytest.raises(OrthancOutcomeUnknown):
            waiting.result(timeout=PATIENCE_SECONDS)
        with pytest.raises(OrthancUnavailable):
            connections.get("/after")


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.005)
