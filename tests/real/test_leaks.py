"""A canary patient, token and password go through the server; its log and its errors hold none."""

import asyncio
import io
import os
import re
import secrets
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from services.auth.roles import Role
from services.embedded.mongod import EmbeddedMongod
from services.embedded.orthanc import EmbeddedOrthanc
from services.embedded.ports import find_free_port
from services.frames.signing import generate_key
from tests.patience import PATIENCE_SECONDS
from tests.tokens import write_tokens_file

NAME, PATIENT_ID, BIRTH_DATE = "Zyxwvut^Canary", "PATKANARI4711", "19030407"
STUDY_UID = "1.2.826.0.1.3680043.10.77.4711"
# What pydicom thinks of the canary is no concern of the server.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

_ACCESS = re.compile(r"orthanc_graphql\.access \[[0-9a-f]{16}\] (.+ \d+) [0-9.]+ ms")


@dataclass
class Process:
    """The server as a process of its own, and everything that it said."""

    http: httpx.AsyncClient
    token: str
    secrets: list[str]
    errors: list[str] = field(default_factory=list)
    log: str = ""

    async def graphql(self, query: str, **variables: object) -> httpx.Response:
        return await self.http.post("/graphql", json={"query": query, "variables": variables})


@pytest.fixture
async def process(
    mongodb: EmbeddedMongod, empty_orthanc: EmbeddedOrthanc, tmp_path: Path
) -> AsyncIterator[Process]:
    token = write_tokens_file(tmp_path / "tokens.json", {"ann": Role.ADMIN})["ann"]
    key, port = generate_key(), find_free_port()
    environment = os.environ | {
        "MONGODB_URL": mongodb.url,
        "MONGODB_DATABASE": f"test_{secrets.token_hex(6)}",
        "ORTHANC_URL": empty_orthanc.url,
        "ORTHANC_USERNAME": empty_orthanc.username,
        "ORTHANC_PASSWORD": empty_orthanc.password,
        "FRAME_URL_KEYS": key,
        "TMPDIR": str(tmp_path),
    }
    arguments = ["serve", "--port", str(port), "--data-dir", str(tmp_path), "--log-level", "debug"]
    log = tmp_path / "server.log"
    with log.open("wb") as output:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "graph.cli", *arguments,
            env=environment, cwd=tmp_path, stdout=output, stderr=output,
        )  # fmt: skip
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30, trust_env=False
        ) as http:
            known = [token, key.partition(":")[2], empty_orthanc.password, mongodb.url]
            served = Process(http, token, known)
            await _until_ready(http, child, log)
            yield served
            child.terminate()
            await child.wait()


async def _until_ready(
    http: httpx.AsyncClient, child: asyncio.subprocess.Process, log: Path
) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            assert child.returncode is None, _read(log)
            try:
                await http.get("/healthz")
            except httpx.TransportError:
                await asyncio.sleep(0.05)
            else:
                return


def canary(**changes: object) -> bytes:
    dataset = dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = NAME, PATIENT_ID, BIRTH_DATE
    dataset.StudyInstanceUID = STUDY_UID
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    written = io.BytesIO()
    dataset.save_as(written)
    return written.getvalue()


def _read(path: Path) -> str:
    return path.read_text()


def _names(folder: Path) -> str:
    return " ".join(str(path) for path in folder.rglob("*"))


async def read_log(folder: Path, until: str) -> str:
    """Read the server's log; the line of a request follows its answer."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while until not in (log := await asyncio.to_thread(_read, folder / "server.log")):  # noqa: ASYNC110  # files give no notice
            await asyncio.sleep(0.01)
    return log


async def send(process: Process, name: str, body: bytes) -> httpx.Response:
    return await process.http.post(
        "/api/dicom/upload",
        files={"file": (name, body)},
        headers={"Origin": "http://evil"} if name == "foreign" else {},
    )


async def test_nothing_of_a_patient_and_no_secret_is_in_logs_and_errors(
    process: Process, tmp_path: Path
) -> None:
    stored = await send(process, f"{NAME}.dcm", canary())
    assert stored.status_code == 200, stored.text
    tree = await process.graphql(
        "query ($uid: String!, $id: String!) { study(studyInstanceUID: $uid) { patient "
        "{ patientName } archiveUrl series { instances { tags fileUrl frame { url } } } } "
        "patient(patientID: $id) { patientBirthDate } }",
        uid=STUDY_UID,
        id=PATIENT_ID,
    )
    study = tree.json()["data"]["study"]
    assert study["patient"]["patientName"] == NAME
    frame_url = study["series"][0]["instances"][0]["frame"]["url"]
    assert (await process.http.get(frame_url)).status_code == 200
    assert (await process.http.get(study["archiveUrl"])).status_code == 200
    file_url = study["series"][0]["instances"][0]["fileUrl"]
    assert (await process.http.get(file_url)).status_code == 200

    # Whatever fails: its answer may repeat what the caller sent about the request, no more.
    failures = [
        await send(process, f"{NAME}.dcm", canary()[:3000]),
        await send(process, f"{NAME}.dcm", canary(StationName="other")),
        await send(process, f"{NAME}.dcm", canary(SOPInstanceUID=f"1.2.{NAME}")),
        await send(process, "foreign", canary()),
        await process.http.get(frame_url[:-9] + "9.png"),
        await process.http.get(frame_url + f"?name={NAME}"),
        await process.http.get(f"/api/dicom/studies/{STUDY_UID}/frames/99"),
        await process.http.get(f"/api/dicom/studies/{PATIENT_ID}/frames/0"),
        await process.http.get(f"/nowhere/{PATIENT_ID}"),
        await process.graphql(f'{{ patient(patientID: "{PATIENT_ID}") {{ name{NAME[:3]} }} }}'),
        await process.graphql("{ studies(first: 1000000) { nodes { id } } }"),
        await process.graphql('{ studies(after: "x") { nodes { id } } }'),
        await process.graphql("query ($v: Int!) { studies(first: $v) { nodes { id } } }", v={}),
    ]
    codes = [response.status_code for response in failures]
    assert all(code in {200, 400, 403, 404, 409} for code in codes), codes
    assert all("errors" in r.json() for r in failures if r.status_code == 200)
    anonymous = {"Authorization": f"Bearer {process.token[:-1]}"}
    failures.append(
        await process.http.post(
            "/graphql", json={"query": "{ server { version } }"}, headers=anonymous
        )
    )

    log = await read_log(tmp_path, failures[-1].headers["X-Request-ID"])
    patient = [NAME, PATIENT_ID, BIRTH_DATE, "Zyxwvut", "1903-04-07", STUDY_UID]
    signed = (frame_url, study["archiveUrl"], file_url)
    signatures = [url.split("/")[5] for url in signed]
    errors = "\n".join(response.text for response in failures)
    assert [secret for secret in [*process.secrets, *patient, *signatures] if secret in log] == []
    assert [secret for secret in [*process.secrets, *patient] if secret in errors] == []
    names = _names(tmp_path)
    assert [secret for secret in [*process.secrets, *patient] if secret in names] == []

    accessed = _ACCESS.findall(log)
    assert "GET /frames/v2/{signed:path} 200" in accessed
    assert "GET /archives/v2/{signed:path} 200" in accessed
    assert "GET /files/v2/{signed:path} 200" in accessed
    assert "GET /api/dicom/studies/{study_uid}/frames/{frame_index} 404" in accessed
    assert "POST /graphql 200" in accessed
    assert "GET (no route) 404" in accessed


async def test_every_request_is_in_the_log_with_its_id(process: Process, tmp_path: Path) -> None:
    response = await process.graphql("{ server { version } }")
    reference = response.headers["X-Request-ID"]
    log = await read_log(tmp_path, reference)
    assert re.search(rf"access \[{reference}\] POST /graphql 200 [0-9.]+ ms", log)
