"""Exports on a real Orthanc: prepared, downloaded, unpacked."""

import copy
import dataclasses
import io
import os
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.fileset import FileSet
from pydicom.pixels.utils import pixel_array
from pydicom.uid import generate_uid

from graph.relay import decode_node_id, encode_node_id
from services.auth.roles import Role
from services.exports.folder import ExportFolder
from services.exports.service import ExportFormat
from services.orthanc.answers import StoredFile
from services.orthanc.client import OrthancClient
from services.runtime import Runtime, open_runtime
from services.settings import Settings
from services.study_files import StudyFiles
from tests.planted import found_in
from tests.real.jobs_stage import ADMIN, ended, running_jobs
from tests.real.test_anonymization import ask, images, stored
from tests.servers import RunningServer
from tests.tokens import give_tokens

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

EXPLICIT = "1.2.840.10008.1.2.1"
START = """mutation ($ids: [ID!]!, $format: ExportFormat! = ZIP, $syntax: String) {
  exportStudies(ids: $ids, format: $format, transferSyntaxUID: $syntax) { id state url }
}"""
FOLLOW = """query ($id: ID!) { job(id: $id) {
  state total completed failed url urlExpiresAt failures { sopInstanceUID error { code } }
} }"""


@pytest.fixture
def tokens(settings: Settings) -> dict[str, str]:

    return give_tokens(settings, **{role.name.lower(): role for role in Role})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "exports"
    path.mkdir(exist_ok=True)
    return path


@pytest.fixture
async def runtime(
    settings: Settings, tokens: dict[str, str], folder: Path
) -> AsyncIterator[Runtime]:
    assert tokens
    async with open_runtime(settings.model_copy(update={"export_folder": folder})) as opened:
        yield opened


async def exported(
    server: RunningServer,
    token: str,
    study_ids: list[str],
    arrangement: str = "ZIP",
    syntax: str | None = None,
) -> dict[str, Any]:
    """Export studies; returns the job as it has ended."""
    ids = [encode_node_id("Study", study_id) for study_id in study_ids]
    async with running_jobs(server.runtime):
        answer = await ask(server, token, START, ids=ids, format=arrangement, syntax=syntax)
        started = answer["data"]["exportStudies"]
        assert started["url"] is None
        _, job_id = decode_node_id(started["id"]) or ("", "")
        await ended(server.runtime, job_id)
    followed: dict[str, Any] = (await ask(server, token, FOLLOW, id=started["id"]))["data"]["job"]
    return followed


async def download(server: RunningServer, url: str) -> httpx.Response:
    return await server.http.get(urlsplit(url).path)


async def test_studies_are_downloaded_as_they_are_stored(
    server: RunningServer, runtime: Runtime, tokens: dict[str, str]
) -> None:
    sources = [*images(generate_uid(), 3), *images(generate_uid(), 2)]
    study_ids = await stored(runtime, *sources)
    job = await exported(server, tokens["viewer"], study_ids)
    assert (job["state"], job["total"], job["completed"]) == ("SUCCEEDED", 5, 5)
    assert list(found_in(job["url"].encode())) == []
    response = await download(server, job["url"])
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/zip"
    assert list(found_in(str(response.headers).encode())) == []
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert len(names) == 5
        assert list(found_in("\n".join(names).encode())) == []
        uids = {dcmread(io.BytesIO(archive.read(name))).SOPInstanceUID for name in names}
    assert uids == {source.SOPInstanceUID for source in sources}
    records = await runtime.database["audit"].find({"action": "archive"}).to_list()
    assert [record["numberOfObjects"] for record in records] == [5]


async def test_media_has_a_dicomdir_that_leads_to_every_file(
    server: RunningServer, runtime: Runtime, tokens: dict[str, str], tmp_path: Path
) -> None:
    sources = images(generate_uid(), 2)
    multi = dcmread(str(get_testdata_file("MR_small.dcm", download=False)))
    study_ids = await stored(runtime, *sources, multi)
    job = await exported(server, tokens["viewer"], study_ids, "DICOMDIR")
    assert (job["state"], job["completed"], job["failed"]) == ("SUCCEEDED", 3, 0)
    content = (await download(server, job["url"])).content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        archive.extractall(tmp_path)
    media = FileSet(tmp_path / "DICOMDIR")
    assert {str(one.SOPInstanceUID) for one in media} == {
        str(one.SOPInstanceUID) for one in (*sources, multi)
    }
    for one in media:
        assert one.load().PixelData
    media._stage["t"].cleanup()


async def test_what_has_no_place_on_media_is_named(
    server: RunningServer, runtime: Runtime, tokens: dict[str, str]
) -> None:
    (image,) = images(generate_uid(), 1)
    nobody = images(image.StudyInstanceUID, 1)[0]
    nobody.PatientID = ""
    study_ids = await stored(runtime, image, nobody)
    job = await exported(server, tokens["viewer"], study_ids, "DICOMDIR")
    assert (job["state"], job["completed"]) == ("PARTIAL", 1)
    assert job["failures"] == [
        {"sopInstanceUID": nobody.SOPInstanceUID, "error": {"code": "NOT_ON_MEDIA"}}
    ]
    with zipfile.ZipFile(io.BytesIO((await download(server, job["url"])).content)) as archive:
        assert len(archive.namelist()) == 2


@pytest.mark.parametrize("name", ["JPEG2000.dcm", "SC_rgb_jpeg_dcmtk.dcm", "MR_small_RLE.dcm"])
async def test_compressed_images_are_decoded_on_request(
    server: RunningServer, runtime: Runtime, tokens: dict[str, str], name: str
) -> None:
    source = dcmread(str(get_testdata_file(name, download=False)))
    (study_id,) = await stored(runtime, source)
    job = await exported(server, tokens["viewer"], [study_id], "DICOMDIR", EXPLICIT)
    assert (job["state"], job["completed"]) == ("SUCCEEDED", 1)
    with zipfile.ZipFile(io.BytesIO((await download(server, job["url"])).content)) as archive:
        _, member = archive.namelist()
        result = dcmread(io.BytesIO(archive.read(member)))
    assert result.file_meta.TransferSyntaxUID == EXPLICIT
    assert result.SOPInstanceUID == source.SOPInstanceUID
    # The decoder behind pydicom is another one.
    ours = pixel_array(result, raw=False)
    theirs = pixel_array(source, raw=False)
    assert ours.shape == theirs.shape
    assert int(np.abs(ours.astype(int) - theirs.astype(int)).max()) <= (3 if ours.ndim > 2 else 0)


async def test_what_can_not_be_decoded_is_named(
    server: RunningServer, runtime: Runtime, tokens: dict[str, str]
) -> None:
    source = dcmread(str(get_testdata_file("JPEG2000.dcm", download=False)))
    source.PixelData = encapsulate([b"\xff\x4f\xff\x51 no codestream "])
    (study_id,) = await stored(runtime, source)
    job = await exported(server, tokens["viewer"], [study_id], "ZIP", EXPLICIT)
    assert (job["state"], job["completed"], job["failed"]) == ("FAILED", 0, 1)
    assert [one["error"]["code"] for one in job["failures"]] == ["FRAME_NOT_RENDERABLE"]
    refused = await ask(
        server,
        tokens["viewer"],
        START,
        ids=[encode_node_id("Study", study_id)],
        syntax="1.2.840.10008.1.2.4.90",
    )
    assert [one["extensions"]["argument"] for one in refused["errors"]] == ["transferSyntaxUID"]


async def test_urls_end_with_their_signature_their_job_and_their_files(
    server: RunningServer, runtime: Runtime, tokens: dict[str, str]
) -> None:
    (study_id,) = await stored(runtime, *images(generate_uid(), 1))
    job = await exported(server, tokens["viewer"], [study_id])
    path = urlsplit(job["url"]).path
    forged = path.replace("/exports/v2/", "/exports/v2/x", 1)
    assert (await server.http.get(forged)).status_code == 403
    assert (await server.http.head(path)).status_code == 200
    assert runtime.orthanc is not None
    await runtime.orthanc.delete("studies", study_id)
    assert (await server.http.get(path)).status_code == 404
    await runtime.database["jobs"].delete_many({})
    assert (await server.http.get(path)).status_code == 404


async def test_administrators_see_and_cancel_the_jobs_of_orthanc(
    server: RunningServer, runtime: Runtime, tokens: dict[str, str], settings: Settings
) -> None:
    (study_id,) = await stored(runtime, *images(generate_uid(), 1))
    assert settings.orthanc_url is not None
    password = settings.orthanc_password.get_secret_value()
    async with httpx.AsyncClient(
        base_url=settings.orthanc_url, auth=(settings.orthanc_username, password), trust_env=False
    ) as http:
        begun = await http.post(
            "/tools/create-archive", json={"Resources": [study_id], "Synchronous": False}
        )
    job_id = begun.json()["ID"]
    query = "{ orthancJobs { id type state progress createdAt errorCode errorMessage } }"
    jobs = (await ask(server, tokens["admin"], query))["data"]["orthancJobs"]
    (job,) = [one for one in jobs if one["id"] == job_id]
    assert (job["type"], job["errorCode"], job["errorMessage"]) == ("Archive", 0, None)
    mutation = "mutation ($id: String!) { cancelOrthancJob(id: $id) { id } }"
    cancelled = await ask(server, tokens["admin"], mutation, id=job_id)
    assert cancelled["data"] == {"cancelOrthancJob": {"id": job_id}}
    for unknown in ("x", "../system", "0" * 8 + "-0000-0000-0000-" + "0" * 12):
        answer = await ask(server, tokens["admin"], mutation, id=unknown)
        assert [one["extensions"]["code"] for one in answer["errors"]] == ["ORTHANC_NOT_FOUND"]
    records = await runtime.database["audit"].find({"action": "job"}).to_list()
    assert [record["outcome"] for record in records] == ["ok", *["ORTHANC_NOT_FOUND"] * 3]


async def test_administrators_export_into_the_folder_of_the_server(
    server: RunningServer, runtime: Runtime, tokens: dict[str, str], folder: Path
) -> None:
    sources = images(generate_uid(), 2)
    (study_id,) = await stored(runtime, *sources)
    mutation = START.replace("exportStudies(", "exportToFolder(")
    ids = [encode_node_id("Study", study_id)]
    for role in ("viewer", "uploader"):
        refused = await ask(server, tokens[role], mutation, ids=ids)
        assert [one["extensions"]["code"] for one in refused["errors"]] == ["FORBIDDEN"]
    async with running_jobs(runtime):
        started = await ask(server, tokens["admin"], mutation, ids=ids, format="DICOMDIR")
        _, job_id = decode_node_id(started["data"]["exportToFolder"]["id"]) or ("", "")
        done = await ended(runtime, job_id)
    assert (done.state, done.completed, done.failed) == ("SUCCEEDED", 2, 0)
    assert os.listdir(folder) == [job_id]  # noqa: PTH208  # nothing else runs
    media = FileSet(folder / job_id / "DICOMDIR")
    assert {str(one.SOPInstanceUID) for one in media} == {
        str(one.SOPInstanceUID) for one in sources
    }
    assert (folder / job_id).stat().st_mode & 0o077 == 0
    media._stage["t"].cleanup()
    query = "query ($id: ID!) { job(id: $id) { folder } }"
    shown = await ask(server, tokens["admin"], query, id=encode_node_id("Job", job_id))
    assert shown["data"] == {"job": {"folder": job_id}}


async def test_a_folder_that_can_not_be_written_ends_the_job(
    server: RunningServer, runtime: Runtime, tokens: dict[str, str], folder: Path
) -> None:
    (study_id,) = await stored(runtime, *images(generate_uid(), 1))
    os.rmdir(folder)  # noqa: PTH106  # nothing else runs
    mutation = START.replace("exportStudies(", "exportToFolder(")
    async with running_jobs(runtime):
        started = await ask(
            server, tokens["admin"], mutation, ids=[encode_node_id("Study", study_id)]
        )
        _, job_id = decode_node_id(started["data"]["exportToFolder"]["id"]) or ("", "")
        done = await ended(runtime, job_id)
    assert done.error is not None
    assert (done.state, done.error.code) == ("FAILED", "EXPORT_FOLDER_NOT_WRITABLE")
    assert str(folder) not in done.error.message


async def test_only_what_the_caller_sees_is_exported(
    server: RunningServer, runtime: Runtime, tokens: dict[str, str]
) -> None:
    nowhere = encode_node_id("Study", "-".join(["0" * 8] * 5))
    for ids, code in (([nowhere], "NOT_FOUND"), ([], "INVALID_INPUT"), (["x"], "INVALID_INPUT")):
        answer = await ask(server, tokens["viewer"], START, ids=ids)
        assert [error["extensions"]["code"] for error in answer["errors"]] == [code]
    assert await runtime.database["jobs"].count_documents({}) == 0


async def test_half_an_export_never_looks_complete(
    server: RunningServer, runtime: Runtime, tokens: dict[str, str]
) -> None:
    """MongoDB drops what an export held before its job."""
    job = await exported(
        server, tokens["viewer"], await stored(runtime, *images(generate_uid(), 2))
    )
    await runtime.database["exportParts"].delete_many({})
    assert (await download(server, job["url"])).status_code == 404


async def replace(runtime: Runtime, source: FileDataset, name: str) -> None:
    """Store a file with another PatientName in the place of another, as a correction does."""
    assert runtime.orthanc is not None
    found = await runtime.database["instances"].find_one({"sopInstanceUID": source.SOPInstanceUID})
    assert found is not None
    await runtime.orthanc.delete("instances", found["_id"])
    other = copy.deepcopy(source)
    other.PatientName = name
    await stored(runtime, other)


async def test_an_export_ends_where_a_file_was_replaced_since(
    server: RunningServer, runtime: Runtime, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = images(generate_uid(), 2)
    study_ids = await stored(runtime, first, second)
    job = await exported(server, tokens["viewer"], study_ids, "DICOMDIR")
    download_one, count = OrthancClient.download, 0

    @asynccontextmanager
    async def replaced_while_read(
        self: OrthancClient, instance_id: str
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        nonlocal count
        count += 1
        if count == 1:
            await replace(runtime, first, "Somebody^Else")
        async with download_one(self, instance_id) as chunks:
            yield chunks

    monkeypatch.setattr(OrthancClient, "download", replaced_while_read)
    with pytest.raises(httpx.RemoteProtocolError):
        await download(server, job["url"])
    assert count == 2
    refused = await download(server, job["url"])
    assert (refused.status_code, refused.json()["code"]) == (404, "EXPORT_OUTDATED")
    assert count == 2


async def test_a_folder_is_written_again_when_a_file_is_replaced_meanwhile(
    runtime: Runtime, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The DICOMDIR never names another patient than the files."""
    first, second = images(generate_uid(), 2)
    (study_id,) = await stored(runtime, first, second)
    header_of, count = StudyFiles.header, 0
    begin, begun = ExportFolder.begin, 0

    async def replaced_after(self: StudyFiles, file: StoredFile) -> Dataset:
        nonlocal count
        header = await header_of(self, file)
        count += 1
        if count == 1:
            for source in (first, second):
                await replace(runtime, source, "Corrected^1")
        return header

    async def replaced_before(self: ExportFolder, job_id: str) -> None:
        nonlocal begun
        begun += 1
        if begun == 1:
            for source in (first, second):
                await replace(runtime, source, "Corrected^2")
        await begin(self, job_id)

    monkeypatch.setattr(StudyFiles, "header", replaced_after)
    monkeypatch.setattr(ExportFolder, "begin", replaced_before)
    monkeypatch.setattr(
        runtime.job_runner,
        "_limits",
        dataclasses.replace(runtime.job_runner._limits, retry_seconds=0.0),
    )
    study = await runtime.database["studies"].find_one({"_id": study_id})
    assert study is not None
    async with running_jobs(runtime):
        job = await runtime.exports.start(
            [study], ExportFormat.DICOMDIR, ADMIN, to_folder=True, correlation_id="c0ffee"
        )
        done = await ended(runtime, job.id)
    assert (done.state, done.completed, done.failed) == ("SUCCEEDED", 2, 0)
    assert (count, begun) == (6, 2)
    media = FileSet(folder / job.id / "DICOMDIR")
    for one in media:
        assert str(one.PatientName) == str(one.load().PatientName) == "Corrected^2"
    media._stage["t"].cleanup()


async def test_two_people_are_never_one_on_media(
    server: RunningServer, runtime: Runtime, tokens: dict[str, str], tmp_path: Path
) -> None:
    (one,) = images(generate_uid(), 1)
    # The same file, stored for another patient; and another person with the same PatientID.
    twin = copy.deepcopy(one)
    twin.PatientID, twin.PatientName = "P9", "Somebody^Else"
    (namesake,) = images(generate_uid(), 1)
    namesake.PatientName = "Third^Person"
    study_ids = await stored(runtime, one, twin, namesake)
    assert len(study_ids) == 3
    job = await exported(server, tokens["viewer"], study_ids, "DICOMDIR")
    assert (job["state"], job["completed"], job["failed"]) == ("PARTIAL", 1, 2)
    assert {(one["sopInstanceUID"], one["error"]["code"]) for one in job["failures"]} == {
        (one.SOPInstanceUID, "NOT_ON_MEDIA"),
        (namesake.SOPInstanceUID, "NOT_ON_MEDIA"),
    }
    with zipfile.ZipFile(io.BytesIO((await download(server, job["url"])).content)) as archive:
        assert len(archive.namelist()) == 2
        archive.extractall(tmp_path)
    media = FileSet(tmp_path / "DICOMDIR")
    (found,) = media
    assert (found.PatientID, str(found.PatientName)) == (one.PatientID, str(one.PatientName))
    assert found.load().PatientID == one.PatientID
    media._stage["t"].cleanup()
