"""Orthanc full, and the disks of Orthanc, of MongoDB and of the server: told, and over by itself.

Disks of the stores are made of memory (tmpfs), which only root may: others skip those tests. The
server's own disk is made full by the kernel's limit on the size of files (RLIMIT_FSIZE).
"""

import errno
import io
import json
import resource
import subprocess
import threading
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pydicom
import pytest
from pydantic import SecretStr
from pymongo.errors import PyMongoError

from services.embedded import orthanc as embedded
from services.embedded.mongod import run_mongod
from services.embedded.orthanc import EmbeddedOrthanc, run_orthanc
from services.embedded.orthanc_configuration import compose_configuration
from services.runtime import open_runtime
from services.settings import Settings
from tests.benchmarks.studies import ct_files
from tests.real.sync_stage import eventually, instance_bytes, modality_client
from tests.servers import RunningServer, run_server

_MIB = 1024 * 1024
_MONGODB_MIB = 420
"""Its journal takes 300 before the first document."""

UPLOAD = """mutation ($files: [Upload!]!) { uploadDicom(files: $files) {
  results { status error { code message } } } }"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the sender of a file is told."""

    status: str
    code: str = ""
    message: str = ""


STORED = Outcome("STORED")


async def upload(server: RunningServer, *files: bytes) -> list[Outcome]:
    """Send files; answers the outcome of each, or of the whole request."""
    operation = json.dumps({"query": UPLOAD, "variables": {"files": [None] * len(files)}})
    places = json.dumps({str(n): [f"variables.files.{n}"] for n in range(len(files))})
    response = await server.http.post(
        "/graphql",
        headers={"GraphQL-Preflight": "1"},
        data={"operations": operation, "map": places},
        files=[(str(n), ("file", content)) for n, content in enumerate(files)],
    )
    body: Any = response.json()
    if "errors" in body:
        [error] = body["errors"]
        status = str(response.status_code)
        return [Outcome(status, error["extensions"]["code"], error["message"])]
    return [
        Outcome(result["status"], **(result["error"] or {}))
        for result in body["data"]["uploadDicom"]["results"]
    ]


async def indexed(server: RunningServer) -> int:
    """Count what is in the index."""
    return int(await server.runtime.database["instances"].count_documents({}))


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    """Make a disk."""
    folder.mkdir()
    size = f"size={mebibytes}m,mode=0700"
    mounting = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)]
    if subprocess.run(mounting, check=False, capture_output=True).returncode:  # noqa: S603  # our own words
        pytest.skip("only root may mount a disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S603, S607  # as above


def _takes(file: IO[bytes], content: bytes) -> bool:
    try:
        return bool(file.write(content))
    except OSError as exc:
        if exc.errno != errno.ENOSPC:
            raise
        return False


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Keep a disk full to its last byte while inside: MongoDB gives some back when it stops."""
    filling = disk / "filling"
    is_over = threading.Event()

    def fill(file: IO[bytes]) -> None:
        while _takes(file, bytes(4096)):
            pass

    def keep_full(file: IO[bytes]) -> None:
        while not is_over.wait(0.005):
            fill(file)

    with filling.open("wb", buffering=0) as file:
        fill(file)
        keeping = threading.Thread(target=keep_full, args=(file,))
        keeping.start()
        try:
            yield
        finally:
            is_over.set()
            keeping.join()
            filling.unlink()


@asynccontextmanager
async def serve(settings: Settings, **changes: object) -> AsyncIterator[RunningServer]:
    """Run a server on stores of its own that follows Orthanc."""
    given = settings.model_copy(update=changes)
    async with (
        open_runtime(given, address="127.0.0.1:0") as runtime,
        run_server(given, runtime) as server,
    ):
        yield server


def on(orthanc: EmbeddedOrthanc) -> dict[str, object]:
    """Return the settings that name an Orthanc."""
    return {
        "orthanc_url": orthanc.url,
        "orthanc_username": orthanc.username,
        "orthanc_password": SecretStr(orthanc.password),
    }


async def test_an_orthanc_that_reached_its_limit_says_so_until_there_is_room(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = {"MaximumStorageSize": 1}
    monkeypatch.setattr(
        embedded, "compose_configuration", lambda o: compose_configuration(o) | limit
    )
    first, second, third = ct_files(3)
    async with (
        run_orthanc(tmp_path / "full") as orthanc,
        serve(settings, **on(orthanc)) as server,
        modality_client(orthanc) as modality,
    ):
        assert await upload(server, first) == [STORED]
        refused = Outcome(
            "FAILED",
            "ORTHANC_FULL",
            "Failed to upload to Orthanc PACS. Orthanc has no room left. Ask its administrator to "
            "free or add space. The file was not stored; send it again then.",
        )
        assert await upload(server, second, third) == [refused, refused]
        over_rest = await server.http.post("/api/dicom/upload", files={"file": second})
        assert (over_rest.status_code, over_rest.json()["message"]) == (503, refused.message)
        # It stays full until somebody makes room.
        assert "retry-after" not in over_rest.headers
        assert await indexed(server) == 1
        [study] = (await modality.get("/studies")).json()
        (await modality.delete(f"/studies/{study}")).raise_for_status()
        assert await upload(server, second) == [STORED]


async def test_a_full_disk_of_orthanc_says_so_until_there_is_room(
    settings: Settings, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", 8) as disk:
        async with (
            run_orthanc(disk / "orthanc") as orthanc,
            serve(settings, **on(orthanc)) as server,
        ):
            assert await upload(server, instance_bytes(1, 1, 1)) == [STORED]
            with full(disk):
                [refused] = await upload(server, instance_bytes(1, 1, 2))
                assert (refused.status, refused.code) == ("FAILED", "ORTHANC_FULL")
                assert "write to its disk, which may be full" in refused.message
                assert await indexed(server) == 1
            assert await upload(server, instance_bytes(1, 1, 2)) == [STORED]
            assert await indexed(server) == 2


async def test_a_full_disk_of_mongodb_says_so_and_what_came_meanwhile_appears(
    settings: Settings, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", _MONGODB_MIB) as disk:
        async with (
            run_mongod(disk / "mongodb") as mongod,
            serve(settings, mongodb_url=SecretStr(mongod.url)) as server,
        ):
            assert await upload(server, instance_bytes(1, 1, 1)) == [STORED]
            with full(disk):
                # What is in its memory must go to the disk now, and it stops.
                with pytest.raises(PyMongoError):
                    await server.runtime.database.client.admin.command("fsync")
                [refused] = await upload(server, instance_bytes(1, 1, 2))
                assert refused.code == "DATABASE_UNAVAILABLE"
                assert "again" in refused.message

            async def has_appeared() -> bool:
                try:
                    return await indexed(server) == 2
                except PyMongoError:
                    return False

            await eventually(has_appeared)
            assert await upload(server, instance_bytes(1, 1, 3)) == [STORED]


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """Let this process write no larger file while inside."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def image(mebibytes: int) -> bytes:
    """Make a black image that fills so much and packs well."""
    dataset = pydicom.dcmread(io.BytesIO(instance_bytes(1, 1, 1)))
    dataset.Rows, dataset.Columns = 1024, 512 * mebibytes
    dataset.PixelData = bytes(mebibytes * _MIB)
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def packed(*contents: bytes) -> bytes:
    """Make an archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, content in enumerate(contents):
            archive.writestr(f"{number}.dcm", content)
    return buffer.getvalue()


async def test_a_full_disk_of_the_server_says_so_until_there_is_room(server: RunningServer) -> None:
    large, small = image(4), instance_bytes(1, 1, 2)
    archive = packed(small, large)
    with largest_file(2 * _MIB):
        [refused] = await upload(server, large)
        assert (refused.status, refused.code) == ("507", "UPLOAD_NOT_KEPT")
        outcomes = await upload(server, archive, instance_bytes(1, 1, 3))
        assert [(outcome.status, outcome.code) for outcome in outcomes] == [
            ("STORED", ""),
            ("FAILED", "FILE_UNREADABLE"),
            ("STORED", ""),
        ]
        assert all("Is its disk full?" in told.message for told in (refused, outcomes[1]))
        assert await indexed(server) == 2
    again = await upload(server, archive)
    assert [outcome.status for outcome in again] == ["ALREADY_STORED", "STORED"]
