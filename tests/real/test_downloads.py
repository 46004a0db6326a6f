"""Signed URLs of files and documents on real stores, reports, and what a share may take."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG4HP41,
    UID,
    EncapsulatedCDAStorage,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    VideoEndoscopicImageStorage,
)

from graph.http import streams
from models import AuditRecord
from services.audit import Action
from services.orthanc.client import OrthancClient
from services.runtime import Runtime
from services.settings import Settings
from tests.real.dicomweb_stage import file_named, slices, store, uid
from tests.real.sync_stage import eventually
from tests.servers import RunningServer

PDF = b"%PDF-1.4\n" + b"an odd number of bytes" * 1000
QUERY = """query ($uid: String!) { instance(sopInstanceUID: $uid) {
  fileUrl document { mediaType url urlExpiresAt } report { title text lines { depth name value } }
} }"""
ORIGIN = "https://viewer.example.org"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"cors_allowed_origins": [ORIGIN]})


def document(content: bytes, number: int, *, sop_class: UID = EncapsulatedPDFStorage) -> bytes:
    """Make a file that holds a document."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = uid("document", number)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.PatientID, dataset.StudyInstanceUID = "P1", uid("P1")
    dataset.SeriesInstanceUID, dataset.Modality = uid("P1", "documents"), "DOC"
    dataset.EncapsulatedDocument = content
    dataset.EncapsulatedDocumentLength = len(content)
    # What a file says of itself must not choose what a browser does.
    dataset.MIMETypeOfEncapsulatedDocument = "text/html"
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


async def found(server: RunningServer, sop_instance_uid: str) -> dict[str, Any]:
    answer: Any = await server.graphql(QUERY, uid=sop_instance_uid)
    instance: dict[str, Any] = answer["instance"]
    return instance


async def test_a_file_is_at_its_url_for_pages_of_other_origins(server: RunningServer) -> None:
    (file,) = slices("P1", 1)
    await store(server, [file])
    instance = await found(server, uid("P1", "instance", 0))
    assert (instance["document"], instance["report"]) == (None, None)
    url = instance["fileUrl"]
    whole = await server.http.get(url, headers={"Origin": ORIGIN})
    assert whole.status_code == 200
    assert pydicom.dcmread(io.BytesIO(whole.content)).PixelData == (
        pydicom.dcmread(io.BytesIO(file)).PixelData
    )
    assert whole.headers["content-type"] == "application/dicom"
    assert whole.headers["access-control-allow-origin"] == ORIGIN
    assert "Content-Range" in whole.headers["access-control-expose-headers"]
    assert whole.headers["cache-control"].startswith("private, max-age=")
    size = len(whole.content)
    head = await server.http.head(url)
    assert (head.headers["content-length"], head.content) == (str(size), b"")
    etag = whole.headers["etag"]
    for headers, status, begin, end in (
        ({"Range": "bytes=0-99"}, 206, 0, 100),
        ({"Range": "bytes=-100", "If-Range": etag}, 206, size - 100, size),
        # A part of another file must not be joined with a part of this one.
        ({"Range": "bytes=0-99", "If-Range": '"00000000"'}, 200, 0, size),
    ):
        part = await server.http.get(url, headers=headers)
        assert (part.status_code, part.content) == (status, whole.content[begin:end])
    assert (await server.http.get(url, headers={"Range": f"bytes={size}-"})).status_code == 416
    assert (await server.http.get(url, headers={"If-None-Match": etag})).status_code == 304
    preflight = await server.http.options(
        url,
        headers={
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "range",
        },
    )
    assert preflight.status_code == 200
    written = await AuditRecord.find({"action": "archive"}).to_list()
    # One record stands for everything that a viewer loads of a study within minutes.
    assert [record.detail for record in written] == ["GET /files/v2"]
    assert len(written[0].orthanc_study_ids) == 1


async def test_the_downloads_of_one_client_are_counted_together(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store(server, slices("P1", 1))
    query = "{ studies { nodes { archiveUrl series { instances { fileUrl } } } } }"
    listed: Any = await server.graphql(query)
    (study,) = listed["studies"]["nodes"]
    url = study["series"][0]["instances"][0]["fileUrl"]
    monkeypatch.setattr(streams, "_TURN_SECONDS", 0.05)
    download, may_end, begun = OrthancClient.download, asyncio.Event(), 0

    @asynccontextmanager
    async def held(self: OrthancClient, instance_id: str) -> AsyncIterator[AsyncIterator[bytes]]:
        nonlocal begun
        async with download(self, instance_id) as chunks:
            begun += 1
            await may_end.wait()
            yield chunks

    async def all_have_begun() -> bool:
        return begun == server.runtime.settings.archives_per_client

    monkeypatch.setattr(OrthancClient, "download", held)
    slow = [
        asyncio.create_task(server.http.get(url))
        for _ in range(server.runtime.settings.archives_per_client)
    ]
    await eventually(all_have_begun)
    series = f"/dicomweb/studies/{uid('P1')}/series/{uid('P1', 0)}"
    instance = f"{series}/instances/{uid('P1', 'instance', 0)}"
    for path, accepted in (
        (url, "*/*"),
        (instance, "*/*"),
        (instance, "application/dicom"),
        (series, "*/*"),
        (study["archiveUrl"], "*/*"),
    ):
        refused = await server.http.get(path, headers={"Accept": accepted})
        assert (refused.status_code, refused.json()["code"]) == (429, "TOO_MANY_REQUESTS")
    may_end.set()
    assert [(await task).status_code for task in slow] == [200] * len(slow)


async def test_a_pdf_is_shown_in_pages_of_this_server_alone(server: RunningServer) -> None:
    await store(server, [document(PDF, 1)])
    instance = await found(server, uid("document", 1))
    assert instance["document"]["mediaType"] == "application/pdf"
    url = instance["document"]["url"]
    answer = await server.http.get(url)
    assert answer.content == PDF
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.headers["content-disposition"].startswith("inline;")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox; default-src 'none';")
    assert "frame-ancestors 'self'" in policy
    assert answer.headers["x-frame-options"] == "SAMEORIGIN"
    assert answer.headers["x-content-type-options"] == "nosniff"
    part = await server.http.get(url, headers={"Range": "bytes=1-8"})
    assert (part.status_code, part.content) == (206, PDF[1:9])
    assert part.headers["content-range"] == f"bytes 1-8/{len(PDF)}"


async def test_other_documents_are_for_saving_whatever_the_file_says(
    server: RunningServer,
) -> None:
    html = b"<html><script>alert(1)</script></html>"
    (file,) = slices("P1", 1)
    await store(server, [document(html, 2, sop_class=EncapsulatedCDAStorage), file])
    kept = (await found(server, uid("document", 2)))["document"]
    assert kept["mediaType"] == "text/xml"
    answer = await server.http.get(kept["url"])
    assert answer.content == html
    assert answer.headers["content-type"].startswith("text/xml")
    assert answer.headers["content-disposition"].startswith("attachment;")
    # The signature is of one object and one purpose.
    signed = kept["url"].split("/documents/")[1]
    assert (await server.http.get(f"/files/{signed}.dcm")).status_code == 403
    image = (await found(server, uid("P1", "instance", 0)))["fileUrl"]
    assert (await server.http.get(image.replace("/files/", "/documents/"))).status_code == 403


def video(content: bytes) -> bytes:
    """Make a file that holds a video."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = MPEG4HP41
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = VideoEndoscopicImageStorage
    dataset.SOPInstanceUID = uid("video")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.PatientID, dataset.StudyInstanceUID = "P1", uid("P1")
    dataset.SeriesInstanceUID, dataset.Modality = uid("P1", "video"), "ES"
    dataset.Rows = dataset.Columns = 64
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "YBR_PARTIAL_420"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation, dataset.NumberOfFrames = 7, 0, 25
    dataset.PixelData = encapsulate([content], has_bot=False)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


async def test_a_video_is_played_in_parts(server: RunningServer) -> None:
    content = b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 1000
    await store(server, [video(content)])
    found_video = (await found(server, uid("video")))["document"]
    assert found_video["mediaType"] == "video/mp4"
    whole = await server.http.get(found_video["url"])
    assert whole.content == content
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["accept-ranges"] == "bytes"
    part = await server.http.get(found_video["url"], headers={"Range": "bytes=100000-100099"})
    assert (part.status_code, part.content) == (206, content[100_000:100_100])


async def test_a_report_is_text(server: RunningServer) -> None:
    content = file_named("test-SR.dcm")
    await store(server, [content])
    report = (await found(server, pydicom.dcmread(io.BytesIO(content)).SOPInstanceUID))["report"]
    assert report["title"] == "Diagnosis"
    assert report["text"].splitlines()[0] == "Some UID: 1.2.3.4.5"
    assert report["lines"][4] == {"depth": 2, "name": "modifier: Code", "value": "Sample Code 2"}


async def test_what_was_deleted_is_gone_at_its_url(server: RunningServer) -> None:
    await store(server, [document(PDF, 1)])
    instance = await found(server, uid("document", 1))
    listed: Any = await server.graphql("{ studies { nodes { id } } }")
    await server.graphql(
        "mutation ($id: ID!) { deleteStudy(id: $id) { deletedInstances } }",
        id=listed["studies"]["nodes"][0]["id"],
    )
    for url in (instance["fileUrl"], instance["document"]["url"]):
        answer = await server.http.get(url)
        assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")
        assert answer.headers["cache-control"] == "no-store"


async def test_a_share_takes_files_only_where_it_may_and_only_while_it_lasts(
    server: RunningServer, runtime: Runtime
) -> None:
    await store(server, [document(PDF, 1)])
    listed: Any = await server.graphql("{ studies { nodes { id } } }")
    study = listed["studies"]["nodes"][0]["id"]
    create = """mutation ($input: CreateShareInput!) {
      createShare(input: $input) { token share { id } }
    }"""
    made = {}
    for may_download in (True, False):
        given = {
            "name": "x",
            "studyIds": [study],
            "expiresAt": (datetime.now(UTC) + timedelta(minutes=10)).isoformat(),
            "mayDownload": may_download,
        }
        answer: Any = await server.graphql(create, input=given)
        made[may_download] = answer["createShare"]

    async def asked(may_download: bool, query: str) -> dict[str, Any]:
        response = await server.http.post(
            "/graphql",
            json={"query": query, "variables": {"uid": uid("document", 1)}},
            headers={"Authorization": f"Bearer {made[may_download]['token']}"},
        )
        answer: dict[str, Any] = response.json()
        return answer

    refused = await asked(False, QUERY)
    assert [error["extensions"]["code"] for error in refused["errors"]] == ["FORBIDDEN"]
    looked = await asked(False, QUERY.replace("fileUrl", "id"))
    shown = looked["data"]["instance"]["document"]["url"]
    assert (await server.http.get(shown)).status_code == 200
    taken = (await asked(True, QUERY))["data"]["instance"]
    assert (await server.http.get(taken["fileUrl"])).status_code == 200
    events = await runtime.database["audit"].find({"action": Action.ARCHIVE.value}).to_list()
    assert {event["principal"] for event in events} == {
        f"share:{share_id}" for share_id in await share_ids(runtime)
    }
    for share in made.values():
        await server.graphql(
            "mutation ($id: ID!) { revokeShare(id: $id) { id } }", id=share["share"]["id"]
        )

    async def ended() -> bool:
        urls = (shown, taken["fileUrl"], taken["document"]["url"])
        return {(await server.http.get(url)).status_code for url in urls} == {410}

    await eventually(ended)


async def share_ids(runtime: Runtime) -> list[str]:
    return [share["_id"] for share in await runtime.database["shares"].find({}).to_list()]
