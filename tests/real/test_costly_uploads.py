"""Files and archives that cost much to read delay nobody but their sender, and leave no memory."""

import asyncio
import io
import json
import os
import struct
import zipfile
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest
from pydicom import dcmread

from services.embedded.mongod import EmbeddedMongod
from services.embedded.orthanc import EmbeddedOrthanc
from services.settings import Settings
from tests.databases import lent_database
from tests.real.bystander import Guarded, nobody_waits, resident_bytes, serve_with_tokens
from tests.real.conftest import emptied
from tests.real.hostile_files import forget_peak, peak_bytes, with_damaged_image
from tests.real.sync_stage import eventually, instance_bytes, modality_client
from tests.servers import settings_on

_MIB = 1024 * 1024
_MEMBERS = int(os.environ.get("MEMBERS", "5000"))

_SOME = 50
"""Members that are stored before the sender of an archive goes away."""

_GREEDY = 42
"""Seed of a JPEG 2000 file of 6 kB without PhotometricInterpretation: GDCM asks for 14 to 22 GB."""

_UPLOAD = """mutation ($files: [Upload!]!) { uploadDicom(files: $files) {
  failedCount results { status error { code } instance { sopInstanceUID } } } }"""


LIMITS = {
    "ZIP_MAX_MEMBERS": str(_MEMBERS),
    "QUERY_MAX_NODES": "1000",
    # The limits that are tested are others, also on a busy machine.
    "OPERATION_SECONDS": "60",
}


@pytest.fixture(scope="module")
async def guarded(
    mongodb: EmbeddedMongod, orthanc: EmbeddedOrthanc, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Guarded]:
    """One server for all tests that leave nothing running."""
    async with lent_database(mongodb) as name:
        folder = tmp_path_factory.mktemp("costly")
        settings = settings_on(mongodb, await emptied(orthanc), folder, mongodb_database=name)
        async with serve_with_tokens(settings, **LIMITS) as running:
            yield running


@pytest.fixture
async def abandoned(settings: Settings) -> AsyncIterator[Guarded]:
    """A server that does not end an upload whose sender went away before it stops."""
    async with serve_with_tokens(settings, **LIMITS, SHUTDOWN_SECONDS="1") as running:
        yield running


async def upload(http: httpx.AsyncClient, *files: bytes) -> list[dict[str, Any]]:
    operations = {"query": _UPLOAD, "variables": {"files": [None] * len(files)}}
    places = {str(n): [f"variables.files.{n}"] for n in range(len(files))}
    response = await http.post(
        "/graphql",
        headers={"GraphQL-Preflight": "1"},
        data={"operations": json.dumps(operations), "map": json.dumps(places)},
        files=[(str(n), (str(n), body)) for n, body in enumerate(files)],
    )
    answer = response.json()
    assert (response.status_code, answer.get("errors")) == (200, None)
    results: list[dict[str, Any]] = answer["data"]["uploadDicom"]["results"]
    return results


def outcomes(results: Sequence[dict[str, Any]]) -> set[tuple[str, str | None]]:
    return {(one["status"], one["error"] and one["error"]["code"]) for one in results}


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    """Write an element in Explicit VR Little Endian (PS3.5 7.1.2)."""
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if vr in {b"SQ", b"UT"}:
        return head + vr + struct.pack("<HI", 0, len(value)) + value
    return head + vr + struct.pack("<H", len(value)) + value


def sequences(count: int, items: int, item: bytes = b"") -> bytes:
    """Write sequences of equal items (PS3.5 7.5), in private elements in front of the pixels."""
    value = (struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item) * items
    creator = element(0x00750010, b"LO", b"TEST")
    return creator + b"".join(element(0x00751000 + n, b"SQ", value) for n in range(count))


def with_elements(number: int, elements: bytes) -> bytes:
    """Return a CT with further elements between groups 0043 and 7FE0."""
    content = instance_bytes(600, 1, number)
    place = content.index(b"\xe0\x7f\x10\0OW")
    return content[:place] + elements + content[place:]


async def test_many_items_and_elements(guarded: Guarded) -> None:
    creator = element(0x00750010, b"LO", b"TEST")
    empty = b"".join(element(0x00751000 + n, b"LO", b"") for n in range(50_000))
    refused = [
        (sequences(1, 1_900_000), "TOO_MANY_ITEMS"),
        (sequences(1, 200_000), "TOO_MANY_ITEMS"),
        (creator + empty, "TOO_MANY_ELEMENTS"),
    ]
    legal = sequences(2, 20_000)
    async with guarded.client(guarded.attacker) as http:
        await upload(http, instance_bytes(600, 2, 1))

        async def send(number: int) -> None:
            for elements, code in refused:
                results = await upload(http, with_elements(number, elements))
                assert outcomes(results) == {("REJECTED", code)}
            results = await upload(http, with_elements(number, legal))
            assert outcomes(results) == {("STORED", None)}

        async def attack(attempt: int) -> None:
            await asyncio.gather(*(send(10 * attempt + worker) for worker in range(1, 7)))

        await nobody_waits(guarded, attack, most_mebibytes=150)


async def test_headers_of_40_mb(guarded: Guarded) -> None:
    text = element(0x00324000, b"LT", b"x" * 1_960)
    # The last one is answered as a whole: all `tags` of a query have at most 32 MiB.
    items = [10_000] * 2 + [8_000]
    headers = [with_elements(n, sequences(2, count, text)) for n, count in enumerate(items, 101)]
    async with guarded.client(guarded.attacker) as http:
        uids = [one["instance"]["sopInstanceUID"] for one in await upload(http, *headers)]

        async def ask(uid: str, selection: str) -> str:
            query = f'{{ instance(sopInstanceUID: "{uid}") {{ {selection} }} }}'
            response = await http.post("/graphql", json={"query": query})
            errors = response.json().get("errors", [{"extensions": {"code": "OK"}}])
            return str(errors[0]["extensions"]["code"])

        async def ask_for_all(_attempt: int = 0) -> None:
            asking = [ask(uid, "tags") for uid in uids]
            codes = await asyncio.gather(*asking, ask(uids[0], 'tags(only: ["Modality"])'))
            assert codes == [*["LIMIT_EXCEEDED"] * 2, "OK", "OK"]

        before = await resident_bytes(guarded)
        await ask_for_all()
        # The allocator keeps some of what the first time took. The second time takes no more.
        await nobody_waits(guarded, ask_for_all, most_mebibytes=150)
        assert await resident_bytes(guarded) - before < 500 * _MIB


def small_files(attempt: int) -> list[bytes]:
    """Make as many instances without pixels, other ones for each attempt."""
    first = 10_000_000 * (attempt + 1)
    dataset = dcmread(io.BytesIO(instance_bytes(601, 1, first)))
    del dataset.PixelData
    written = io.BytesIO()
    dataset.save_as(written)
    content = written.getvalue()
    return [
        content.replace(f".{first}".encode(), f".{first + n}".encode()) for n in range(_MEMBERS)
    ]


def archive(members: Sequence[bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for number, body in enumerate(members):
            file.writestr(str(number), body)
    return packed.getvalue()


async def test_an_archive_of_many_members(abandoned: Guarded) -> None:
    too_many = await asyncio.to_thread(archive, [b""] * (_MEMBERS + 1))
    useless = await asyncio.to_thread(archive, [b"This is no DICOM file."] * _MEMBERS)
    async with abandoned.client(abandoned.attacker) as http:
        await upload(http, useless[:1000])

        async def send_useless() -> None:
            assert outcomes(await upload(http, too_many)) == {("REJECTED", "ARCHIVE_TOO_LARGE")}
            results = await upload(http, useless)
            assert len(results) == _MEMBERS
            assert outcomes(results) == {("REJECTED", "NOT_DICOM")}

        async def count_stored() -> int:
            query = "{ studies { nodes { numberOfInstances } } }"
            found = (await http.post("/graphql", json={"query": query})).json()["data"]
            return sum(one["numberOfInstances"] for one in found["studies"]["nodes"])

        async def attack(attempt: int) -> None:
            before = await count_stored()
            valid = await asyncio.to_thread(archive, small_files(attempt))
            sending = asyncio.create_task(upload(http, valid))

            async def hundreds_are_stored() -> bool:
                return await count_stored() - before > _SOME

            await asyncio.gather(send_useless(), eventually(hundreds_are_stored))
            # All of them would take minutes. Its sender goes away.
            sending.cancel()
            await asyncio.wait([sending])

        await nobody_waits(abandoned, attack, most_mebibytes=250)


async def test_a_file_that_asks_for_gigabytes(guarded: Guarded, orthanc: EmbeddedOrthanc) -> None:
    content = with_damaged_image(_GREEDY)
    uid = str(dcmread(io.BytesIO(content)).SOPInstanceUID)
    restarts = orthanc.child.restarts
    await asyncio.to_thread(forget_peak, orthanc.child.pid)
    before = peak_bytes(orthanc.child.pid)
    query = f"""{{ instance(sopInstanceUID: "{uid}") {{
      isRenderable frame {{ url }} thumbnail: frame {{ url(maxSize: 64) }} }} }}"""

    async with guarded.client(guarded.attacker) as http, modality_client(orthanc) as modality:
        # A modality's files are not checked before Orthanc has them.
        (await modality.post("/instances", content=content)).raise_for_status()

        async def look() -> None:
            for _ in range(20):
                await upload(http, content)
                found = (await http.post("/graphql", json={"query": query})).json()["data"]
                instance = found["instance"]
                assert not instance["isRenderable"]
                for frame in (instance["frame"], instance["thumbnail"]):
                    if frame is not None:
                        answer = await http.get(frame["url"])
                        assert answer.status_code in {415, 422, 503}, answer.text

        async def attack(_attempt: int) -> None:
            await asyncio.gather(*(look() for _ in range(3)))

        await nobody_waits(guarded, attack, most_mebibytes=100)
    assert orthanc.child.restarts == restarts
    assert peak_bytes(orthanc.child.pid) - before < 500 * _MIB
