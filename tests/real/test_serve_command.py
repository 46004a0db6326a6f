"""The command `serve` with its embedded stores, as a process of its own."""

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.clients import http_client

_PATIENCE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Served:
    process: Process
    url: str
    output: str


async def _start(*arguments: str, **environment: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "graph.cli", "serve", *arguments,
        env=os.environ | environment, stdout=PIPE, stderr=STDOUT,
    )  # fmt: skip


async def _output_of(*arguments: str, **environment: str) -> tuple[int, str]:
    process = await _start(*arguments, **environment)
    async with asyncio.timeout(_PATIENCE_SECONDS):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


@asynccontextmanager
async def _served(data_dir: Path) -> AsyncIterator[Served]:
    process = await _start("--port", "0", "--data-dir", str(data_dir))
    assert process.stdout is not None
    output = ""
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while "Ctrl-C" not in output:
                line = await process.stdout.readline()
                assert line, output
                output += line.decode()
        found = re.search(r"http://127\.0\.0\.1:\d+", output)
        assert found is not None
        yield Served(process, found[0], output)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in text.split()]


async def _until_gone(pids: list[int]) -> None:
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while await asyncio.to_thread(_any_exists, pids):  # noqa: ASYNC110  # the kernel tells nobody
            await asyncio.sleep(0.05)


def _any_exists(pids: list[int]) -> bool:
    return any(Path(f"/proc/{pid}").exists() for pid in pids)


async def test_a_first_start_answers_the_first_query_and_data_survive_restarts(
    tmp_path: Path,
) -> None:
    query = {"query": "{ studies { totalCount nodes { thumbnail { url } } } }"}
    async with _served(tmp_path) as served:
        assert "sample files" in served.output
        async with http_client(served.url) as http:
            assert (await http.get("/readyz")).json() == {"status": "ready"}
            first = (await http.post("/graphql", json=query)).json()["data"]["studies"]
            pictures = [node["thumbnail"]["url"] for node in first["nodes"] if node["thumbnail"]]
            for url in pictures:
                assert (await http.get(url)).content.startswith(b"\x89PNG")
        code, output = await _output_of("--port", "0", "--data-dir", str(tmp_path))
        assert code == 1
        assert f"already uses the data directory {tmp_path}" in output
        children = _children(served.process.pid)
        assert len(children) == 2
        served.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_PATIENCE_SECONDS):
            assert await served.process.wait() == 0
        # It ended in order: stores first, then its claim on the folder.
        assert not (tmp_path / "stores.json").exists()
        await _until_gone(children)
    assert first["totalCount"] >= 5
    assert pictures

    async with _served(tmp_path) as again:
        assert "sample files" not in again.output
        async with http_client(again.url) as http:
            second = (await http.post("/graphql", json=query)).json()["data"]["studies"]
            assert second["totalCount"] == first["totalCount"]
            # The key is kept in the data directory: links outlive a restart.
            path = pictures[0].removeprefix(served.url)
            assert (await http.get(path)).status_code == 200
        children = _children(again.process.pid)
        again.process.kill()
        await _until_gone(children)


async def test_an_open_server_is_refused_on_other_addresses_before_a_store_starts(
    tmp_path: Path,
) -> None:
    code, output = await _output_of("--host", "0.0.0.0", "--port", "0", "--data-dir", str(tmp_path))  # noqa: S104  # refused
    assert code == 1
    assert "Refused to start without credentials" in output
    assert "it would listen on 0.0.0.0" in output
    assert not (tmp_path / "mongodb").exists()
    assert not (tmp_path / "orthanc").exists()


async def test_a_port_that_is_taken_is_told_before_anything_starts(tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        code, output = await _output_of("--port", str(port), "--data-dir", str(tmp_path))
    assert code == 1
    assert f"Can't listen on 127.0.0.1:{port}" in output
    assert "--port" in output
    assert not (tmp_path / "mongodb").exists()


async def test_a_wrong_setting_is_one_clear_line(tmp_path: Path) -> None:
    code, output = await _output_of("--data-dir", str(tmp_path), UPLOAD_MAX_BYTES="much")
    assert code == 1
    assert "UPLOAD_MAX_BYTES: Input should be a valid integer" in output
    assert "Traceback" not in output


async def test_a_misspelt_setting_is_told_before_anything_else(tmp_path: Path) -> None:
    code, output = await _output_of(
        "--data-dir", str(tmp_path), ORTHANC_URL="http://orthanc:8042", FRAME_URL_KEY="k1:key"
    )
    assert code == 1
    first = output.splitlines()[0]
    assert "WARNING graph.commands.serve" in first
    assert first.endswith(
        "FRAME_URL_KEY in the environment is no setting. Did you mean FRAME_URL_KEYS?"
    )
