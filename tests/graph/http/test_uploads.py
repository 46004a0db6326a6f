import json
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from graph.http.multipart import Form, UploadedFile, UploadLimits
from graph.http.uploads import mapped_operation, read_operation
from services.errors import Error, InvalidInput

LIMITS = UploadLimits(max_bytes=300_000, max_files=3, idle_seconds=5)
PREFLIGHT = {"GraphQL-Preflight": "1"}


async def echo(request: Request) -> Response:
    """Answers each file of the operation as [name, content]."""
    try:
        async with read_operation(request, LIMITS) as operation:
            files = operation["variables"]["files"]
            return JSONResponse([[file.name, _text(file)] for file in files])
    except Error as error:
        return JSONResponse({"code": error.code, "message": error.message}, status_code=400)


def _text(file: UploadedFile) -> str:
    with file.open() as opened:
        opened.seek(0, 2)
        assert opened.tell() == file.size
        opened.seek(0)
        return opened.read().decode()


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(Starlette(routes=[Route("/", echo, methods=["POST"])]))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def multipart(*contents: bytes) -> dict[str, Any]:
    operations = {"query": "q", "variables": {"files": [None] * len(contents)}}
    paths = {str(n): [f"variables.files.{n}"] for n in range(len(contents))}
    return {
        "data": {"operations": json.dumps(operations), "map": json.dumps(paths)},
        "files": [(str(n), (f"{n}.dcm", content)) for n, content in enumerate(contents)],
    }


async def test_files_arrive_where_the_map_says(http: httpx.AsyncClient) -> None:
    answer = await http.post("/", **multipart(b"one", b"", b"x" * 200_000), headers=PREFLIGHT)
    assert answer.json() == [["0.dcm", "one"], ["1.dcm", ""], ["2.dcm", "x" * 200_000]]


@pytest.mark.parametrize("chunk_bytes", [1_000, 20_000, 70_000])
@pytest.mark.parametrize("most_written", [1 << 30, 7_001])
async def test_files_arrive_whole_however_they_are_cut_and_written(
    http: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    chunk_bytes: int,
    most_written: int,
) -> None:
    def writev(descriptor: int, pieces: Sequence[memoryview]) -> int:
        return os.write(descriptor, b"".join(pieces)[:most_written])

    monkeypatch.setattr("os.writev", writev)
    contents = [
        b"\r\n--".join(b"%d" % (n % 10) * n for n in range(240)),
        b"y" * 60_000,
        b"\r\n" * 999,
    ]
    request = httpx.Request("POST", "http://test/", **multipart(*contents), headers=PREFLIGHT)
    whole = request.read()

    async def body() -> AsyncIterator[bytes]:
        for begin in range(0, len(whole), chunk_bytes):
            yield whole[begin : begin + chunk_bytes]

    headers = {**PREFLIGHT, "Content-Type": request.headers["Content-Type"]}
    answer = await http.post("/", content=body(), headers=headers)
    assert [content.encode() for _, content in answer.json()] == contents


async def test_a_field_that_is_no_utf_8_is_refused(http: httpx.AsyncClient) -> None:
    parts = multipart(b"one")
    parts["data"]["patientID"] = b"\xff\xfe"
    answer = await http.post("/", **parts, headers=PREFLIGHT)
    assert answer.json() == {
        "code": "INVALID_INPUT",
        "message": "The text of a form's field must be UTF-8.",
    }


async def test_without_preflight_the_body_is_not_read(http: httpx.AsyncClient) -> None:
    read = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read = True
        yield b"x"

    answer = await http.post(
        "/", content=body(), headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    assert answer.json()["code"] == "FORBIDDEN"
    assert not read


async def test_a_body_that_says_it_is_too_large_is_not_read(http: httpx.AsyncClient) -> None:
    answer = await http.post("/", **multipart(b"x" * 300_001), headers=PREFLIGHT)
    assert answer.json() == {
        "code": "LIMIT_EXCEEDED",
        "message": "The body of this request may have 300000 bytes.",
    }


async def test_a_body_of_unknown_length_is_counted(http: httpx.AsyncClient) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="0"; filename="a"\r\n\r\n'
        for _ in range(40):
            yield b"x" * 10_000

    headers = {**PREFLIGHT, "Content-Type": "multipart/form-data; boundary=b"}
    answer = await http.post("/", content=body(), headers=headers)
    assert answer.json()["code"] == "LIMIT_EXCEEDED"


async def test_too_many_files_are_refused(http: httpx.AsyncClient) -> None:
    answer = await http.post("/", **multipart(b"1", b"2", b"3", b"4"), headers=PREFLIGHT)
    assert answer.json()["code"] == "LIMIT_EXCEEDED"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b'--b\r\nContent-Disposition: form-data; name="0"; filename="a"\r\n\r\nhalf',
        b"--b\r\nContent-Disposition: form-data\r\n\r\nno name\r\n--b--\r\n",
    ],
)
async def test_malformed_bodies_are_refused(http: httpx.AsyncClient, body: bytes) -> None:
    headers = {**PREFLIGHT, "Content-Type": "multipart/form-data; boundary=b"}
    answer = await http.post("/", content=body, headers=headers)
    assert answer.json()["code"] == "INVALID_INPUT"


async def test_a_boundary_that_is_too_long_is_refused(http: httpx.AsyncClient) -> None:
    headers = {**PREFLIGHT, "Content-Type": "multipart/form-data; boundary=" + "x" * 5_000}
    answer = await http.post("/", content=b"", headers=headers)
    assert answer.json() == {
        "code": "INVALID_INPUT",
        "message": "The boundary of the form is too long; RFC 2046 allows 70 characters.",
    }


GOOD = '{"query": "q", "variables": {"file": null, "files": [null, null], "text": "t"}}'


def form(operations: str | None, paths: str | None, *names: str) -> Form:
    fields = {"operations": operations, "map": paths}
    files = tuple(UploadedFile(name, name, 0, 0, -1) for name in names)
    return Form({key: value for key, value in fields.items() if value is not None}, files)


def malformed() -> Iterator[tuple[str, Form]]:
    yield "no operations", form(None, "{}")
    yield "no map", form(GOOD, None)
    yield "operations no JSON", form("{", "{}")
    yield "map no JSON", form(GOOD, "{")
    yield "operations a list", form("[]", "{}")
    yield "map a list", form(GOOD, "[]")
    yield "variables a list", form('{"variables": []}', "{}")
    yield "variables null", form('{"variables": null}', '{"0": ["variables.file"]}', "0")
    yield "file missing", form(GOOD, '{"0": ["variables.file"]}')
    yield "file not in the map", form(GOOD, "{}", "0")
    yield "paths no list", form(GOOD, '{"0": "variables.file"}', "0")
    yield "path no text", form(GOOD, '{"0": [1]}', "0")
    yield "no path", form(GOOD, '{"0": []}', "0")
    yield "two variables", form(GOOD, '{"0": ["variables.files.0", "variables.files.1"]}', "0")
    yield "the query", form(GOOD, '{"0": ["query"]}', "0")
    yield "out of range", form(GOOD, '{"0": ["variables.files.2"]}', "0")
    yield "negative", form(GOOD, '{"0": ["variables.files.-1"]}', "0")
    yield "unknown variable", form(GOOD, '{"0": ["variables.other"]}', "0")
    yield "through a text", form(GOOD, '{"0": ["variables.text.0"]}', "0")
    yield "not null", form(GOOD, '{"0": ["variables.text"]}', "0")
    yield (
        "the same twice",
        form(GOOD, '{"0": ["variables.file"], "1": ["variables.file"]}', "0", "1"),
    )
    yield "two files of one name", form(GOOD, '{"0": ["variables.file"]}', "0", "0")


@pytest.mark.parametrize("sent", [pytest.param(f, id=name) for name, f in malformed()])
def test_malformed_operations_and_maps_are_invalid_input(sent: Form) -> None:
    with pytest.raises(InvalidInput):
        mapped_operation(sent)
