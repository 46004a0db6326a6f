"""`orthanc-graphql health` is what Docker runs every few seconds."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from subprocess import run

import pytest
from click.testing import CliRunner, Result

from graph.cli import main


@contextmanager
def answering(status: int) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b'{"status":"ok"}')

        def log_message(self, *_: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/healthz"
        finally:
            server.shutdown()
            thread.join()


def health_of(url: str) -> Result:
    return CliRunner().invoke(main, ["health", "--url", url])


def test_a_server_that_answers_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with answering(200) as url:
        result = health_of(url)
    assert (result.exit_code, result.stdout) == (0, '{"status":"ok"}\n')


@pytest.mark.parametrize("status", [404, 503])
def test_a_server_that_refuses_is_not(status: int) -> None:
    with answering(status) as url:
        result = health_of(url)
    assert result.exit_code == 1
    assert str(status) in result.stderr


def test_nobody_there_is_not_well() -> None:
    with answering(200) as url:
        gone = url
    assert health_of(gone).exit_code == 1
    assert health_of("file:///etc/passwd").exit_code == 2


def test_it_loads_little() -> None:
    code = (
        "import sys, graph.commands.health\n"
        "print({'pydantic', 'beanie', 'pydicom', 'starlette', 'numpy'} & sys.modules.keys())"
    )
    done = run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603  # this Python
    assert done.stdout == "set()\n"
