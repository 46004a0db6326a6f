"""WADO-RS files, bulk data and STOW-RS on real stores."""

import io
import zipfile
from typing import Any

import httpx
import pydicom
import pytest

from services.auth.roles import Principal, Role
from tests.real.dicomweb_stage import ROOT, file_named, made, slices, store, uid, values
from tests.real.test_dicomweb_frames import parts_of, path_of
from tests.real.test_dicomweb_metadata import with_long_binaries
from tests.servers import RunningServer

P1 = f"{ROOT}/studies/{uid('P1')}"
SERIES = f"{P1}/series/{uid('P1', 0)}"
FILES = 'multipart/related; type="application/dicom"'


def datasets(parts: list[tuple[str, bytes]]) -> dict[str, bytes]:
    """Return the pixels of files by SOPInstanceUID."""
    read = [pydicom.dcmread(io.BytesIO(content)) for _, content in parts]
    return {dataset.SOPInstanceUID: dataset.PixelData for dataset in read}


def expected(files: list[bytes]) -> dict[str, bytes]:
    return datasets([("", file) for file in files])


@pytest.mark.parametrize("accept", [FILES, "*/*", f"{FILES}; transfer-syntax=*"])
async def test_files_of_all_levels_come_in_parts(server: RunningServer, accept: str) -> None:
    files = slices("P1", 5, series=2)
    await store(server, [*files, *slices("P2", 1)])
    study = parts_of(await server.http.get(P1, headers={"Accept": accept}))
    assert datasets(study) == expected(files)
    assert {content_type for content_type, _ in study} == {
        "application/dicom; transfer-syntax=1.2.840.10008.1.2.1"
    }
    series = parts_of(await server.http.get(SERIES, headers={"Accept": accept}))
    assert datasets(series) == expected(files[::2])
    one = f"{SERIES}/instances/{uid('P1', 'instance', 0)}"
    assert datasets(parts_of(await server.http.get(one, headers={"Accept": accept}))) == expected(
        files[:1]
    )


async def test_series_and_studies_come_as_archives(server: RunningServer) -> None:
    files = slices("P1", 3)
    await store(server, files)
    for path in (P1, SERIES):
        answer = await server.http.get(path, headers={"Accept": "application/zip"})
        assert answer.headers["content-type"] == "application/zip"
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            contents = [("", archive.read(name)) for name in archive.namelist()]
        assert datasets(contents) == expected(files)
    refused = await server.http.get(f"{SERIES}/instances/{uid('P1', 'instance', 0)}",
                                    headers={"Accept": "application/zip"})  # fmt: skip
    assert refused.status_code == 406


async def test_one_file_alone_can_be_read_in_ranges(server: RunningServer) -> None:
    await store(server, slices("P1", 1))
    path = f"{SERIES}/instances/{uid('P1', 'instance', 0)}"
    whole = await server.http.get(path, headers={"Accept": "application/dicom"})
    size = len(whole.content)
    assert whole.headers["content-length"] == str(size)

    async def part(given: str) -> httpx.Response:
        headers = {"Accept": "application/dicom", "Range": given}
        return await server.http.get(path, headers=headers)

    for given, begin, end in (
        ("bytes=0-99", 0, 100),
        ("bytes=128-", 128, size),
        ("bytes=-100", size - 100, size),
        ("bytes=10000-99999999", 10_000, size),
    ):
        answer = await part(given)
        assert answer.status_code == 206
        assert answer.headers["content-range"] == f"bytes {begin}-{end - 1}/{size}"
        assert answer.content == whole.content[begin:end]
    outside = await part(f"bytes={size}-")
    assert outside.status_code == 416
    assert outside.headers["content-range"] == f"bytes */{size}"
    for ignored in ("bytes=0-1,5-6", "lines=1-2", "bytes=-"):
        assert (await part(ignored)).status_code == 200


async def test_files_are_not_transcoded(server: RunningServer) -> None:
    await store(server, slices("P1", 1))
    accept = f"{FILES}; transfer-syntax=1.2.840.10008.1.2.4.90"
    assert (await server.http.get(SERIES, headers={"Accept": accept})).status_code == 406


async def test_bulk_data_is_at_its_address(server: RunningServer) -> None:
    content = with_long_binaries()
    await store(server, [content])
    dataset = pydicom.dcmread(io.BytesIO(content))
    (model,) = (await server.http.get(f"{path_of(dataset)}/metadata")).json()
    address = model["00880200"]["Value"][1]["00091001"]["BulkDataURI"]
    ((content_type, value),) = parts_of(await server.http.get(address))
    assert content_type == "application/octet-stream"
    assert value == b"\1" * 70_000
    headers = {"Accept": "application/octet-stream", "Range": "bytes=10-19"}
    part = await server.http.get(model["00091010"]["BulkDataURI"], headers=headers)
    assert part.status_code == 206
    assert part.content == b"\2" * 10
    for wrong in ("00100010", "zz", "00880200/9/00091001"):
        answer = await server.http.get(f"{path_of(dataset)}/bulkdata/{wrong}")
        assert answer.status_code == 404


def multipart(files: list[bytes], part_type: str = "application/dicom") -> tuple[bytes, str]:
    body = b"".join(
        b"--xxBOUNDARYxx\r\nContent-Type: " + part_type.encode() + b"\r\n\r\n" + file + b"\r\n"
        for file in files
    )
    content_type = 'multipart/related; type="application/dicom"; boundary=xxBOUNDARYxx'
    return body + b"--xxBOUNDARYxx--\r\n", content_type


async def sent(
    server: RunningServer, files: list[bytes], path: str = "/studies", **more: str
) -> httpx.Response:
    body, content_type = multipart(files)
    headers = {"Content-Type": content_type, **more}
    return await server.http.post(f"{ROOT}{path}", content=body, headers=headers)


async def test_files_are_stored_with_a_result_each(server: RunningServer) -> None:
    files = slices("P1", 2)
    answer = await sent(server, files)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/dicom+json"
    model = answer.json()
    assert values(model, "00081190") == [f"{server.url}{P1}"]
    assert "00081198" not in model
    assert [values(item, "00081155") for item in values(model, "00081199")] == [
        [uid("P1", "instance", 0)],
        [uid("P1", "instance", 1)],
    ]
    assert (await sent(server, files)).status_code == 200
    again = await server.http.get(values(values(model, "00081199")[0], "00081190")[0])
    assert datasets(parts_of(again)) == expected(files[:1])


async def test_what_is_not_stored_is_told(server: RunningServer) -> None:
    (file,) = slices("P1", 1)
    answer = await sent(server, [file, b"no DICOM at all"])
    assert answer.status_code == 202
    assert [values(item, "00081197") for item in values(answer.json(), "00081198")] == [[0xC000]]
    other = made(**{**_uids_of(file), "SliceLocation": 99})
    conflict = await sent(server, [other])
    assert conflict.status_code == 409
    (item,) = values(conflict.json(), "00081198")
    assert values(item, "00081197") == [0x0111]
    assert values(item, "00081155") == [uid("P1", "instance", 0)]
    wrong = await sent(server, slices("P2", 1), f"/studies/{uid('P1')}")
    assert wrong.status_code == 409
    assert [values(item, "00081197") for item in values(wrong.json(), "00081198")] == [[0xA900]]
    assert await server.runtime.database["studies"].count_documents({}) == 1
    assert (await sent(server, slices("P2", 1), f"/studies/{uid('P2')}")).status_code == 200


def _uids_of(file: bytes) -> dict[str, Any]:
    dataset = pydicom.dcmread(io.BytesIO(file))
    names = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    return {name: dataset[name].value for name in names}


async def test_bodies_of_other_kinds_are_refused(server: RunningServer) -> None:
    body, content_type = multipart([b"{}"], "application/dicom+json")
    url = f"{ROOT}/studies"
    for content, kind, status in (
        (body, content_type, 415),
        (body, "application/dicom", 415),
        (body, 'multipart/related; type="application/dicom+json"; boundary=x', 415),
        (body, 'multipart/related; type="application/dicom"', 400),
        (b"--xxBOUNDARYxx\r\n\r\nx", content_type, 400),
        (multipart([])[0], content_type, 400),
    ):
        answer = await server.http.post(url, content=content, headers={"Content-Type": kind})
        assert answer.status_code == status, kind
    foreign = await sent(server, [file_named("CT_small.dcm")], Origin="https://evil.example")
    assert foreign.status_code == 403


async def test_roles_are_those_of_everything_else(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    who: list[Principal | None] = [None]

    async def authenticate(_: object) -> Principal | None:
        return who[0]

    monkeypatch.setattr(server.runtime.authenticator, "authenticate", authenticate)
    for path in ("/studies", f"/studies/{uid('P1')}/metadata", f"/studies/{uid('P1')}"):
        answer = await server.http.get(f"{ROOT}{path}")
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    assert (await sent(server, slices("P1", 1))).status_code == 401
    who[0] = Principal("ann", Role.VIEWER)
    assert (await sent(server, slices("P1", 1))).status_code == 403
    who[0] = Principal("share", Role.VIEWER, may_download=False)
    await store(server, slices("P3", 1))
    study = f"{ROOT}/studies/{uid('P3')}"
    for path in ("", f"/series/{uid('P3', 0)}"):
        assert (await server.http.get(f"{study}{path}")).status_code == 403
    assert (await server.http.get(f"{study}/metadata")).status_code == 200
    who[0] = Principal("ann", Role.UPLOADER)
    assert (await sent(server, slices("P1", 1))).status_code == 200
    assert (await server.http.delete(f"{ROOT}/studies/{uid('P1')}")).status_code == 405
