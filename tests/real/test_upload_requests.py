"""Uploads over real HTTP: refused before they are read, cut when they stop, gone when they end."""

import asyncio
import errno
import io
import json
import tempfile
import zipfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from graph.http import multipart
from services.auth.authenticator import Authenticator
from services.embedded.mongod import EmbeddedMongod
from services.embedded.orthanc import EmbeddedOrthanc
from services.runtime import open_runtime
from services.settings import Settings
from tests.patience import PATIENCE_SECONDS
from tests.real.raw_requests import answer_to_half, half_sent
from tests.servers import RunningServer, run_server, settings_on
from tests.tokens import made_token, read_cache_of

PREFLIGHT = {"GraphQL-Preflight": "1"}
MULTIPART = "multipart/form-data; boundary=b"
UPLOAD = """mutation ($files: [Upload!]!) { uploadDicom(files: $files) { storedCount failedCount
  results { fileName status frameCount error { code } instance { sopInstanceUID } }
  studies { numberOfInstances } } }"""
MAX_BYTES = 200_000


@pytest.fixture(scope="module")
def settings(
    mongodb: EmbeddedMongod, orthanc: EmbeddedOrthanc, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    return settings_on(
        mongodb,
        orthanc,
        tmp_path_factory.mktemp("uploads"),
        upload_max_bytes=MAX_BYTES,
        upload_max_files=3,
        upload_idle_seconds=0.3,
    )


@pytest.fixture(scope="module")
async def server(settings: Settings) -> AsyncIterator[RunningServer]:
    """One server for all: these tests are about requests, and most store nothing."""
    async with open_runtime(settings) as runtime, run_server(settings, runtime) as running:
        assert runtime.orthanc is not None
        yield running
        await runtime.database.client.drop_database(settings.mongodb_database)


@pytest.fixture(scope="module")
async def guarded(
    settings: Settings, server: RunningServer
) -> AsyncIterator[tuple[RunningServer, str]]:
    """The same services behind a server that asks for tokens, and the token of a viewer."""
    document, viewer = made_token("viewer")
    authenticator = Authenticator(await read_cache_of(document))
    runtime = replace(server.runtime, authenticator=authenticator)
    async with run_server(settings, runtime) as running:
        yield running, viewer


@pytest.fixture(autouse=True)
async def _nothing_is_left(server: RunningServer) -> AsyncIterator[None]:
    before = temporary_files()
    yield
    async with asyncio.timeout(PATIENCE_SECONDS):
        while left := temporary_files() - before:  # noqa: ASYNC110  # files give no notice
            await asyncio.sleep(0.01)
    assert left == set()
    assert server.runtime is not None


def temporary_files() -> set[str]:
    """Files in the folder for temporary ones, and open ones that have no name any more."""
    folder = Path(tempfile.gettempdir())
    found = {str(path) for path in folder.iterdir() if path.name.startswith("tmp")}
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:
            continue
        if target.startswith(str(folder)) and target.endswith("(deleted)"):
            found.add(target)
    return found


def content(name: str) -> bytes:
    return Path(str(get_testdata_file(name, download=False))).read_bytes()


def fresh(name: str) -> bytes:
    """Return a test file of pydicom in a study of its own."""
    dataset = dcmread(str(get_testdata_file(name, download=False)))
    dataset.StudyInstanceUID = generate_uid()
    written = io.BytesIO()
    dataset.save_as(written)
    return written.getvalue()


def form(
    *files: tuple[str, bytes], operations: str | None = None, paths: str | None = None
) -> dict[str, Any]:
    places = {str(n): [f"variables.files.{n}"] for n in range(len(files))}
    asked = {"query": UPLOAD, "variables": {"files": [None] * len(files)}}
    return {
        "data": {"operations": operations or json.dumps(asked), "map": paths or json.dumps(places)},
        "files": [(str(n), file) for n, file in enumerate(files)],
    }


def code_of(answer: dict[str, Any]) -> str:
    return str(answer["errors"][0]["extensions"]["code"])


@pytest.mark.usefixtures("empty_orthanc")
async def test_files_are_stored_and_told_one_by_one(server: RunningServer) -> None:
    sent = form(("ct.dcm", content("CT_small.dcm")), ("note.txt", b"no DICOM" * 50))
    response = await server.http.post("/graphql", headers=PREFLIGHT, **sent)
    assert response.json()["data"]["uploadDicom"] == {
        "storedCount": 1,
        "failedCount": 1,
        "results": [
            {
                "fileName": "ct.dcm",
                "status": "STORED",
                "frameCount": 1,
                "error": None,
                "instance": {"sopInstanceUID": "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"},
            },
            {
                "fileName": "note.txt",
                "status": "REJECTED",
                "frameCount": 0,
                "error": {"code": "NOT_DICOM"},
                "instance": None,
            },
        ],
        "studies": [{"numberOfInstances": 1}],
    }


@pytest.mark.parametrize("body", [b"", b"--b\r\nContent-Disposition: form-data"])
async def test_without_preflight_half_a_body_is_answered_with_403(
    server: RunningServer, body: bytes
) -> None:
    headers = {"Content-Type": MULTIPART, "Content-Length": "100000"}
    status, answer = await answer_to_half(server, "/graphql", headers, body)
    assert (status, code_of(answer)) == (403, "FORBIDDEN")


@pytest.mark.parametrize(("is_known", "expected"), [(False, 401), (True, 403)])
@pytest.mark.parametrize("path", ["/graphql", "/api/dicom/upload"])
async def test_who_may_not_upload_is_told_before_the_body_is_read(
    guarded: tuple[RunningServer, str], path: str, is_known: bool, expected: int
) -> None:
    server, viewer = guarded
    headers = PREFLIGHT | {"Content-Type": MULTIPART, "Content-Length": "100000"}
    if is_known:
        headers["Authorization"] = f"Bearer {viewer}"
    status, _ = await answer_to_half(server, path, headers, b"--b\r\n")
    assert status == expected


@pytest.mark.parametrize("path", ["/graphql", "/api/dicom/upload"])
async def test_a_length_over_the_limit_is_413_before_the_body_is_read(
    server: RunningServer, path: str
) -> None:
    headers = PREFLIGHT | {"Content-Type": MULTIPART, "Content-Length": str(MAX_BYTES + 1)}
    status, _ = await answer_to_half(server, path, headers)
    assert status == 413


@pytest.mark.parametrize("path", ["/graphql", "/api/dicom/upload"])
async def test_a_body_without_length_is_413_as_soon_as_it_is_too_large(
    server: RunningServer, path: str
) -> None:
    async def too_much() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="0"; filename="a"\r\n\r\n'
        for _ in range(MAX_BYTES // 5_000):
            yield bytes(10_000)

    headers = PREFLIGHT | {"Content-Type": MULTIPART}
    response = await server.http.post(path, content=too_much(), headers=headers)
    assert response.status_code == 413


async def test_a_json_body_over_its_limit_is_413(server: RunningServer) -> None:
    query = "{ server { version } }" + " " * server.runtime.settings.graphql_body_max_bytes
    response = await server.http.post("/graphql", json={"query": query})
    assert (response.status_code, code_of(response.json())) == (413, "LIMIT_EXCEEDED")


async def test_too_many_files_are_413(server: RunningServer) -> None:
    sent = form(*[(f"{number}.dcm", b"x") for number in range(4)])
    response = await server.http.post("/graphql", headers=PREFLIGHT, **sent)
    assert response.status_code == 413


@pytest.mark.parametrize("path", ["/graphql", "/api/dicom/upload"])
async def test_an_upload_that_stops_arriving_is_cut(server: RunningServer, path: str) -> None:
    headers = PREFLIGHT | {"Content-Type": MULTIPART, "Content-Length": "100000"}
    started = b'--b\r\nContent-Disposition: form-data; name="0"; filename="a"\r\n\r\nhalf'
    status, _ = await answer_to_half(server, path, headers, started)
    assert status == 408


async def test_a_sender_who_goes_leaves_nothing(server: RunningServer) -> None:
    headers = PREFLIGHT | {"Content-Type": MULTIPART, "Content-Length": "150000"}
    started = b'--b\r\nContent-Disposition: form-data; name="0"; filename="a"\r\n\r\n'
    before = temporary_files()
    async with half_sent(server, "/graphql", headers, started + bytes(70_000)):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while temporary_files() <= before:  # noqa: ASYNC110  # the server is no part of us
                await asyncio.sleep(0.005)
    # The fixture sees that it is gone.
    assert (await server.http.get("/healthz")).status_code == 200


MALFORMED = {
    "operations no JSON": ("{", "{}"),
    "operations nested endlessly": ("[" * 100_000, "{}"),
    "operations a list": ('[{"query": "{ server { version } }"}]', "{}"),
    "operations a number": ("1", "{}"),
    "map no JSON": ('{"query": "q", "variables": {"files": [null]}}', "{"),
    "map a list": ('{"query": "q", "variables": {"files": [null]}}', "[]"),
    "path to nowhere": ('{"query": "q", "variables": {}}', '{"0": ["variables.files.0"]}'),
    "path through null": ('{"query": "q", "variables": null}', '{"0": ["variables.files.0"]}'),
    "one file twice": (
        '{"query": "q", "variables": {"files": [null, null]}}',
        '{"0": ["variables.files.0", "variables.files.1"]}',
    ),
    "path into the query": ('{"query": null}', '{"0": ["query"]}'),
    "file that is not sent": (
        '{"query": "q", "variables": {"files": [null, null]}}',
        '{"0": ["variables.files.0"], "1": ["variables.files.1"]}',
    ),
    "query a number": ('{"query": 1, "variables": {"f": null}}', '{"0": ["variables.f"]}'),
    "query missing": ('{"variables": {"f": null}}', '{"0": ["variables.f"]}'),
}


@pytest.mark.parametrize("shape", MALFORMED)
async def test_malformed_operations_and_maps_are_400_with_a_code(
    server: RunningServer, shape: str
) -> None:
    operations, paths = MALFORMED[shape]
    sent = form(("a.dcm", b"x"), operations=operations, paths=paths)
    response = await server.http.post("/graphql", headers=PREFLIGHT, **sent)
    assert (response.status_code, code_of(response.json())) == (400, "INVALID_INPUT")


async def test_a_file_where_no_variable_wants_one_is_a_graphql_error(server: RunningServer) -> None:
    asked = {"query": "query ($f: String) { study(studyInstanceUID: $f) { id } }"}
    operations = json.dumps(asked | {"variables": {"f": None}})
    sent = form(("a", b"x"), operations=operations, paths='{"0": ["variables.f"]}')
    response = await server.http.post("/graphql", headers=PREFLIGHT, **sent)
    assert code_of(response.json()) == "GRAPHQL_VALIDATION_FAILED"


@pytest.mark.parametrize("files", ["x", [], [None], ["x"]])
async def test_files_that_are_no_files_are_an_error_of_the_caller(
    server: RunningServer, files: object
) -> None:
    response = await server.http.post(
        "/graphql", json={"query": UPLOAD, "variables": {"files": files}}
    )
    answer = response.json()
    if files == []:
        assert answer["data"]["uploadDicom"]["results"] == []
    else:
        assert code_of(answer) in {"GRAPHQL_VALIDATION_FAILED", "INVALID_INPUT"}


async def test_the_rest_upload_answers_as_the_former_system(server: RunningServer) -> None:
    response = await server.http.post(
        "/api/dicom/upload",
        files={"file": ("emri.dcm", fresh("MR_small.dcm"))},
        data={"patientID": "PAT001", "patientName": "Doe^Jane"},
    )
    body = response.json()
    assert (response.status_code, body["success"]) == (200, True)
    data = body["data"]
    assert (data["patientID"], data["patientName"]) == ("PAT001", "Doe^Jane")
    frame = await server.http.get(f"/api/dicom/studies/{data['studyInstanceUID']}/frames/0")
    assert (frame.status_code, frame.headers["content-type"]) == (200, "image/png")
    beyond = await server.http.get(f"/api/dicom/studies/{data['studyInstanceUID']}/frames/1")
    assert (beyond.status_code, beyond.json()["success"]) == (404, False)


async def test_an_id_with_another_name_needs_a_confirmation_by_both_ways(
    server: RunningServer,
) -> None:
    async def by_rest(**fields: str) -> tuple[bool, str | None]:
        response = await server.http.post(
            "/api/dicom/upload", files={"file": ("mr.dcm", fresh("MR_small.dcm"))}, data=fields
        )
        body = response.json()
        return body["success"], body.get("message")

    assert (await by_rest(patientID="TAKEN", patientName="Owner^First"))[0] is True
    refused = await by_rest(patientID="TAKEN", patientName="Other^Second")
    assert refused[0] is False
    assert "confirmPatient" in str(refused[1])
    confirmed = await by_rest(patientID="TAKEN", patientName="Other^Second", confirmPatient="true")
    assert confirmed[0] is True
    arguments = 'patientID: "TAKEN", patientName: "Third^Name"'
    outcomes = []
    for argument in ("", ", confirmPatient: true"):
        query = f"""mutation ($files: [Upload!]!) {{
            uploadDicom(files: $files, {arguments}{argument}) {{
                results {{ status error {{ code }} instance {{ {FIELDS} }} }} }} }}"""
        response = await server.http.post(
            "/graphql",
            headers={"GraphQL-Preflight": "1"},
            data={
                "operations": json.dumps({"query": query, "variables": {"files": [None]}}),
                "map": json.dumps({"0": ["variables.files.0"]}),
            },
            files={"0": ("mr.dcm", fresh("MR_small.dcm"))},
        )
        outcomes += response.json()["data"]["uploadDicom"]["results"]
    assert outcomes[0] == {
        "status": "REJECTED",
        "error": {"code": "PATIENT_MISMATCH"},
        "instance": None,
    }
    assert (outcomes[1]["status"], outcomes[1]["error"]) == ("STORED", None)
    instance = outcomes[1]["instance"]
    assert instance.pop("fileSizeBytes") > 8_000
    assert instance == {
        "pixelSpacing": [0.3125, 0.3125],
        "imagerPixelSpacing": None,
        "imagePositionPatient": [-83.9063, -91.2, 6.6406],
        "imageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "sliceThickness": 0.8,
        "spacingBetweenSlices": None,
        "acquisitionDateTime": None,
        "echoNumbers": [1],
        "imageType": ["DERIVED", "SECONDARY", "OTHER"],
        "windows": [{"center": 600, "width": 1600, "explanation": None, "function": "LINEAR"}],
        "burnedInAnnotation": None,
        "patientOrientation": [],
        "series": {"seriesDate": None, "stationName": "000000000", "study": {"patientAge": None}},
    }


FIELDS = """
  fileSizeBytes pixelSpacing imagerPixelSpacing imagePositionPatient imageOrientationPatient
  sliceThickness spacingBetweenSlices acquisitionDateTime echoNumbers imageType
  windows { center width explanation function } burnedInAnnotation patientOrientation
  series { seriesDate stationName study { patientAge } }
"""


async def test_a_study_uid_of_two_patients_is_told_and_never_switches_between_them(
    server: RunningServer,
) -> None:
    uid, file = "", fresh("MR_small.dcm")
    for patient in ("TWIN-A", "TWIN-B"):
        response = await server.http.post(
            "/api/dicom/upload",
            files={"file": ("mr.dcm", file)},
            data={"patientID": patient},
        )
        uid = response.json()["data"]["studyInstanceUID"]
    frame = await server.http.get(f"/api/dicom/studies/{uid}/frames/0")
    assert (frame.status_code, frame.json()["success"]) == (409, False)
    assert "studies(first: 10, filter: {studyInstanceUIDs: [...]})" in frame.json()["message"]
    query = f"""{{ study(studyInstanceUID: "{uid}") {{
        patient {{ patientID }}
        otherStudiesWithThisUID {{ patient {{ patientID }} otherStudiesWithThisUID {{ id }} }}
    }} }}"""
    study = (await server.http.post("/graphql", json={"query": query})).json()["data"]["study"]
    [other] = study["otherStudiesWithThisUID"]
    assert {study["patient"]["patientID"], other["patient"]["patientID"]} == {"TWIN-A", "TWIN-B"}
    assert len(other["otherStudiesWithThisUID"]) == 1


async def test_the_rest_upload_names_the_member_of_an_archive_that_fails(
    server: RunningServer,
) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("1.dcm", content("MR_small.dcm"))
        for name in ("2.dcm", "3.dcm"):
            archive.writestr(name, content("MR_small.dcm")[:-5000])
    sent = {"file": ("all.zip", packed.getvalue())}
    response = await server.http.post("/api/dicom/upload", files=sent)
    message = response.json()["message"]
    assert response.status_code == 400
    assert message.startswith("all.zip/2.dcm: The file ends in the middle of element (7FE0,0010):")
    assert message.endswith("(1 more of 3 files failed)")


@pytest.mark.usefixtures("empty_orthanc")
@pytest.mark.parametrize("empty", ["", "  "])
async def test_inputs_that_nobody_filled_in_leave_the_patient_of_the_file(
    server: RunningServer, empty: str
) -> None:
    sent = {"file": ("mr.dcm", content("MR_small.dcm"))}
    fields = {"patientID": empty, "patientName": empty}
    rest = await server.http.post("/api/dicom/upload", files=sent, data=fields)
    data = rest.json()["data"]
    assert (data["patientID"], data["patientName"]) == ("4MR1", "CompressedSamples^MR1")
    override = f'patientID: "{empty}", patientName: "{empty}"'
    query = UPLOAD.replace("$files)", f"$files, {override})")
    asked = {"query": query, "variables": {"files": [None]}}
    sent_again = form(("mr.dcm", content("MR_small.dcm")), operations=json.dumps(asked))
    response = await server.http.post("/graphql", headers=PREFLIGHT, **sent_again)
    [result] = response.json()["data"]["uploadDicom"]["results"]
    assert result["status"] == "ALREADY_STORED"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 400),
        ({}, 400),
    ],
)
async def test_the_rest_upload_refuses_pages_of_other_origins_before_the_body(
    server: RunningServer, headers: dict[str, str], status: int
) -> None:
    given = headers | {"Content-Type": MULTIPART, "Content-Length": "5"}
    body = b"" if status == 403 else b"--b--"
    assert (await answer_to_half(server, "/api/dicom/upload", given, body))[0] == status


@pytest.mark.parametrize("path", ["/graphql", "/api/dicom/upload"])
async def test_a_full_disk_is_507_and_the_next_upload_works(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    def full(_descriptor: int, _data: bytearray) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    sent = form(("a.dcm", b"x" * 1000))
    with monkeypatch.context() as patched:
        patched.setattr(multipart, "_write_all", full)
        response = await server.http.post(path, headers=PREFLIGHT, **sent)
    assert response.status_code == 507
    assert "Is its disk full?" in response.text
    again = await server.http.post("/graphql", headers=PREFLIGHT, **sent)
    [result] = again.json()["data"]["uploadDicom"]["results"]
    assert result["error"] == {"code": "NOT_DICOM"}


@pytest.mark.parametrize("index", ["-1", "1.0", "x", "9" * 30, "\u0661", "0%0a"])
async def test_frames_that_make_no_sense_are_404(server: RunningServer, index: str) -> None:
    response = await server.http.get(f"/api/dicom/studies/1.2.3/frames/{index}")
    assert (response.status_code, response.json()["success"]) == (404, False)


async def test_a_file_is_stored_as_a_plain_body(server: RunningServer) -> None:
    route, headers = "/api/dicom/instances", {"Content-Type": "application/dicom"}
    file = fresh("CT_small.dcm")
    stored = await server.http.put(route, content=file, headers=headers)
    assert (stored.status_code, stored.json()["success"]) == (200, True)
    again = await server.http.put(route, content=file)
    assert again.json()["data"] == stored.json()["data"]
    uid = stored.json()["data"]["studyInstanceUID"]
    query = "query ($uid: String!) { study(studyInstanceUID: $uid) { numberOfInstances } }"
    assert await server.graphql(query, uid=uid) == {"study": {"numberOfInstances": 1}}


@pytest.mark.parametrize(
    ("body", "media_type", "status", "code"),
    [
        (b"no DICOM", "application/dicom", 400, "NOT_DICOM"),
        (b"", "application/dicom", 400, "EMPTY_FILE"),
        (b"a=b", "application/x-www-form-urlencoded", 415, "UNSUPPORTED_MEDIA_TYPE"),
        (bytes(MAX_BYTES + 1), "application/dicom", 413, "LIMIT_EXCEEDED"),
    ],
)
async def test_a_plain_body_that_is_no_file_is_refused(
    server: RunningServer, body: bytes, media_type: str, status: int, code: str
) -> None:
    answer = await server.http.put(
        "/api/dicom/instances", content=body, headers={"Content-Type": media_type}
    )
    assert (answer.status_code, answer.json()["code"]) == (status, code)
