"""Hostile files through the whole server, before the real embedded Orthanc."""

import asyncio
import io
import json
import secrets
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from pydicom import dcmread

from services.embedded.mongod import EmbeddedMongod
from services.embedded.orthanc import EmbeddedOrthanc, run_orthanc
from services.runtime import open_runtime
from services.tasks import Supervisor
from tests.real.hostile_files import (
    SOURCES,
    archive,
    content,
    damaged,
    nested,
    peak_bytes,
    with_damaged_codestream,
    with_damaged_image,
    with_uid,
)
from tests.servers import RunningServer, run_server, settings_on

# pydicom says what it thinks of the values that are made here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

UPLOAD = """mutation ($files: [Upload!]!) { uploadDicom(files: $files) { results {
  fileName status error { code message }
  instance { sopInstanceUID numberOfFrames frame { url } last: frames(first: 2, offset: 1) { url } }
} } }"""
_BATCH = 50

_MEMORY_MEBIBYTES = 2048
"""Orthanc holds one or two files and their decoded frames at a time: far below its limit of 5 GiB,
which is there for the largest files."""


@pytest.fixture(scope="module")
async def hostile_orthanc(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[EmbeddedOrthanc]:
    async with run_orthanc(tmp_path_factory.mktemp("hostile")) as running:
        yield running


@pytest.fixture(scope="module")
async def server(
    mongodb: EmbeddedMongod,
    hostile_orthanc: EmbeddedOrthanc,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[RunningServer]:
    data_dir = tmp_path_factory.mktemp("server")
    settings = settings_on(
        mongodb, hostile_orthanc, data_dir, zip_max_members=50, zip_max_bytes=40_000_000
    )
    async with open_runtime(settings) as runtime, run_server(settings, runtime) as running:
        yield running
        await runtime.database.client.drop_database(settings.mongodb_database)


@pytest.fixture
def mutations(pytestconfig: pytest.Config) -> int:
    return int(pytestconfig.getoption("--mutations"))


async def upload(server: RunningServer, files: Sequence[bytes]) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    for start in range(0, len(files), _BATCH):
        batch = files[start : start + _BATCH]
        operations = {"query": UPLOAD, "variables": {"files": [None] * len(batch)}}
        places = {str(n): [f"variables.files.{n}"] for n in range(len(batch))}
        response = await server.http.post(
            "/graphql",
            headers={"GraphQL-Preflight": "1"},
            data={"operations": json.dumps(operations), "map": json.dumps(places)},
            files=[(str(n), (str(start + n), body)) for n, body in enumerate(batch)],
        )
        answer = response.json()
        assert (response.status_code, answer.get("errors")) == (200, None)
        results += answer["data"]["uploadDicom"]["results"]
    return results


async def outcome(server: RunningServer, body: bytes) -> tuple[str, str | None]:
    [result] = await upload(server, [body])
    return result["status"], result["error"] and result["error"]["code"]


async def shown(server: RunningServer, results: Sequence[dict[str, Any]]) -> Counter[int]:
    """Ask for the first and last frames of all that is stored; answers the statuses."""
    statuses: Counter[int] = Counter()
    for result in results:
        instance = result["instance"] or {}
        frames = [instance.get("frame"), *instance.get("last", [])]
        for frame in filter(None, frames):
            statuses[(await server.http.get(frame["url"])).status_code] += 1
    return statuses


@dataclass(slots=True)
class PeakMemory:
    """The most memory of Orthanc's processes."""

    mebibytes: int = 0


@asynccontextmanager
async def peak_memory(orthanc: EmbeddedOrthanc) -> AsyncIterator[PeakMemory]:
    """Watch Orthanc's memory while the block runs, in whichever process it runs then."""
    peak = PeakMemory()

    def look() -> None:
        peak.mebibytes = max(peak.mebibytes, peak_bytes(orthanc.child.pid) // 2**20)

    async def watch() -> None:
        # The kernel keeps the peak of a process: only that of one that ends is lost.
        while True:
            look()
            await asyncio.sleep(0.02)

    async with Supervisor().running("memory of Orthanc", watch):
        yield peak
    look()


@pytest.mark.no_cover
@pytest.mark.no_cover
@pytest.mark.parametrize("damage", [damaged, with_damaged_image, with_damaged_codestream])
async def test_no_damaged_file_ends_orthanc_or_takes_its_memory(
    server: RunningServer,
    hostile_orthanc: EmbeddedOrthanc,
    mutations: int,
    damage: Callable[[int], bytes],
) -> None:
    restarts = hostile_orthanc.child.restarts
    async with peak_memory(hostile_orthanc) as peak:
        results = await upload(server, [damage(number) for number in range(mutations)])
        statuses = await shown(server, results)
    outcomes = Counter(result["status"] for result in results)
    refusals = Counter(result["error"]["code"] for result in results if result["error"])
    report = (
        f"{damage.__name__}: {dict(outcomes)}, {dict(refusals)}, frames {dict(statuses)}, "
        f"peak {peak.mebibytes} MiB"
    )
    # Shown by `pytest -s`, and when an assertion fails.
    print(report)  # noqa: T201
    assert "FAILED" not in outcomes, report
    assert outcomes["STORED"] > 0, report
    assert set(statuses) <= {200, 415, 422, 503}, report
    assert statuses[200] > 0, report
    assert hostile_orthanc.child.restarts == restarts, report
    assert 0 < peak.mebibytes < _MEMORY_MEBIBYTES, report


@pytest.mark.no_cover
async def test_good_files_are_shown_after_the_damaged_ones(server: RunningServer) -> None:
    # Damage keeps the UIDs of the good files: theirs must be free.
    good = []
    for number, name in enumerate(SOURCES):
        dataset = dcmread(io.BytesIO(content(name)))
        dataset.SOPInstanceUID = f"1.2.826.0.1.3680043.10.2.{number}"
        written = io.BytesIO()
        dataset.save_as(written)
        good.append(written.getvalue())
    results = await upload(server, good)
    assert [result["status"] for result in results] == ["STORED"] * len(SOURCES)
    statuses = await shown(server, results)
    assert set(statuses) == {200}
    pictures = [r for r in results if r["instance"]["numberOfFrames"]]
    assert len(pictures) == len(SOURCES) - 1


@pytest.mark.parametrize("depth", [25, 45, 50, 1_000, 100_000])
async def test_deep_nesting_is_refused(
    server: RunningServer, hostile_orthanc: EmbeddedOrthanc, depth: int
) -> None:
    restarts = hostile_orthanc.child.restarts
    assert await outcome(server, nested(depth)) == ("REJECTED", "NESTED_TOO_DEEP")
    assert hostile_orthanc.child.restarts == restarts


async def test_a_length_past_the_end_is_refused(server: RunningServer) -> None:
    meta = bytearray(content("CT_small.dcm"))
    struct.pack_into("<I", meta, 140, 0xFFFFFF00)
    status, _ = await outcome(server, bytes(meta))
    assert status == "REJECTED"
    element = bytearray(content("CT_small.dcm"))
    struct.pack_into("<H", element, element.index(b"\x08\x00\x20\x00DA") + 6, 0xFFFE)
    assert await outcome(server, bytes(element)) == ("REJECTED", "TRUNCATED")


@pytest.mark.parametrize("declared", [2, 1_000_000, 2_147_483_647])
async def test_frames_that_are_not_there_are_not_counted(
    server: RunningServer, declared: int
) -> None:
    dataset = dcmread(io.BytesIO(content("CT_small.dcm")))
    dataset.NumberOfFrames = declared
    dataset.SOPInstanceUID = f"1.2.826.0.1.3680043.10.3.{declared}"
    written = io.BytesIO()
    dataset.save_as(written)
    [result] = await upload(server, [written.getvalue()])
    assert (result["status"], result["instance"]["numberOfFrames"]) == ("STORED", 1)
    assert set(await shown(server, [result])) <= {200, 415}


async def test_a_deflated_bomb_is_refused(server: RunningServer) -> None:
    dataset = dcmread(io.BytesIO(content("image_dfl.dcm")))
    written = io.BytesIO()
    dataset.save_as(written)
    body = written.getvalue()
    start = 132 + 12 + struct.unpack_from("<I", body, 140)[0]
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    bomb = b"".join(deflater.compress(bytes(1_000_000)) for _ in range(60)) + deflater.flush()
    status, code = await outcome(server, body[:start] + bomb)
    assert (status, code) == ("REJECTED", "INFLATES_TOO_FAR")


def overlapping() -> bytes:
    body = bytearray(archive(("a", b"hello"), ("b", b"world")))
    second = body.index(b"PK\x01\x02", body.index(b"PK\x01\x02") + 4)
    body[second + 42 : second + 46] = bytes(4)
    return bytes(body)


def encrypted() -> bytes:
    body = bytearray(archive(("a", b"a")))
    body[6] |= 1
    body[body.index(b"PK\x01\x02") + 8] |= 1
    return bytes(body)


def symlink() -> bytes:
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr(info, "/etc/passwd")
    return packed.getvalue()


ARCHIVES = {
    "too many members": (archive(*((str(n), b"") for n in range(51))), "ARCHIVE_TOO_LARGE"),
    "unpacks too far": (
        archive(*((str(n), secrets.token_bytes(150_000) * 100) for n in range(3))),
        "ARCHIVE_TOO_LARGE",
    ),
    "compressed too highly": (archive(("bomb", bytes(20_000_000))), "ARCHIVE_TOO_LARGE"),
    "nested": (archive(("in.zip", archive(("a", b"a")))), "NESTED_ARCHIVE"),
    "symlink": (symlink(), "NOT_DICOM"),
    "encrypted": (encrypted(), "ENCRYPTED"),
    "overlapping": (overlapping(), "DAMAGED_ARCHIVE"),
    "empty": (archive(), "EMPTY_ARCHIVE"),
    "cut off": (archive(("a", b"a" * 1000))[:-10], "DAMAGED_ARCHIVE"),
}


@pytest.mark.parametrize("kind", ARCHIVES)
async def test_archives_that_attack_are_refused(server: RunningServer, kind: str) -> None:
    body, code = ARCHIVES[kind]
    last = (await upload(server, [body]))[-1]
    assert (last["status"], last["error"]["code"]) == ("REJECTED", code)


@pytest.mark.parametrize("name", ["../../../../tmp/x.dcm", "/etc/x.dcm", "C:\\x.dcm", "a\nb\u202e"])
async def test_names_in_archives_are_labels_only(server: RunningServer, name: str) -> None:
    # Of its own: damaged copies of whole test files may have been stored before.
    body = with_uid(f"1.2.826.0.1.3680043.10.5.{zlib.crc32(name.encode())}")
    [result] = await upload(server, [archive((name, body))])
    assert result["status"] == "STORED"
    assert not set("\n\u202e") & set(result["fileName"])


@pytest.mark.parametrize("preamble", [b"MZ", b"\x7fELF", b"<html>", b"%PDF-", b"PK\x03\x04"])
async def test_a_preamble_that_is_a_program_is_not_stored(
    server: RunningServer, preamble: bytes
) -> None:
    uid = f"1.2.826.0.1.3680043.10.4.{preamble[0]}"
    body = preamble.ljust(128, b"!") + with_uid(uid)[128:]
    [result] = await upload(server, [body])
    assert result["status"] == "STORED"
    instance = await server.runtime.database["instances"].find_one({"sopInstanceUID": uid})
    assert instance is not None
    url = server.runtime.orthanc_url
    settings = server.runtime.settings
    stored = await server.http.get(
        f"{url}/instances/{instance['_id']}/file",
        auth=(settings.orthanc_username, settings.orthanc_password.get_secret_value()),
    )
    assert stored.content[:132] == bytes(128) + b"DICM"


@pytest.mark.parametrize(
    "uid", ["1.2.a", "1." * 40 + "1", "1.2\n3", "1.2/../3", "", "1.2 3", "1.2\\1.3", "é"]
)
async def test_uids_that_are_none_are_refused(server: RunningServer, uid: str) -> None:
    status, code = await outcome(server, with_uid(uid))
    assert status == "REJECTED"
    assert code in {"INVALID_UID", "MISSING_UID"}
