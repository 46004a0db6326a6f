"""Files through check, push and index, with a real Orthanc and a real MongoDB."""

import io
import re
import zipfile
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pydicom
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pymongo.asynchronous.database import AsyncDatabase

from services.database import open_database
from services.dicom.layout import WalkLimits
from services.dicom.patient_override import PatientOverride
from services.embedded.mongod import EmbeddedMongod
from services.embedded.orthanc import EmbeddedOrthanc
from services.errors import (
    DatabaseUnavailable,
    InvalidInput,
    PacsDisabled,
    RecordRefused,
)
from services.index.indexer import Indexer
from services.index.record import IndexRecord
from services.index.stored_state import load_patient_names
from services.ingest.archives import ArchiveLimits
from services.ingest.results import StoreResult, StoreStatus
from services.ingest.service import Ingest, SentFile
from services.ingest.storing import FileStorage
from services.orthanc.client import OrthancClient
from services.orthanc.files import OrthancFiles, open_orthanc_files
from services.orthanc.transport import open_http_client
from tests.real.slow_proxy import run_slow_proxy

Database = AsyncDatabase[dict[str, Any]]


@pytest.fixture
async def database(mongodb: EmbeddedMongod, database_name: str) -> AsyncIterator[Database]:
    async with open_database(mongodb.url, database_name) as opened:
        yield opened


@pytest.fixture
async def client(empty_orthanc: EmbeddedOrthanc) -> AsyncIterator[OrthancClient]:
    running = empty_orthanc
    async with open_http_client(running.url, running.username, running.password) as http:
        yield OrthancClient(http)


@pytest.fixture
async def files(empty_orthanc: EmbeddedOrthanc) -> AsyncIterator[OrthancFiles]:
    running = empty_orthanc
    async with open_orthanc_files(running.url, running.username, running.password) as opened:
        yield opened


@pytest.fixture
def ingest(client: OrthancClient, files: OrthancFiles, database: Database) -> Ingest:
    storage = FileStorage(client, files, Indexer(database).index, WalkLimits())
    return Ingest(storage, limits=ArchiveLimits(), concurrency=4)


def content(name: str) -> bytes:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    with open(path, "rb") as file:  # noqa: PTH123  # pydicom gives a text
        return file.read()


def variant(source: str, **changes: object) -> bytes:
    """A test file of pydicom with other values; None takes an element away."""
    dataset = dcmread(io.BytesIO(content(source)))
    for keyword, value in changes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    written = io.BytesIO()
    dataset.save_as(written)
    return written.getvalue()


def sent(name: str, body: bytes) -> SentFile:
    return SentFile(name, lambda: io.BytesIO(body))


def archive(members: Sequence[tuple[str, bytes]]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, body in members:
            file.writestr(name, body)
    return packed.getvalue()


def outcomes(results: Sequence[StoreResult]) -> list[tuple[str, str, str | None]]:
    return [(r.file_name, r.status, r.error.code if r.error else None) for r in results]


async def test_a_file_is_in_orthanc_and_in_mongodb(
    ingest: Ingest, client: OrthancClient, database: Database
) -> None:
    [result] = await ingest.store([sent("ct.dcm", content("CT_small.dcm"))])
    assert (result.status, result.frame_count, result.error) == (StoreStatus.STORED, 1, None)
    assert result.instance_id is not None
    (stored,) = await client.stored_files([result.instance_id])
    document = await database["instances"].find_one({"_id": result.instance_id})
    assert document is not None
    assert document["revision"] == stored.revision
    assert document["fileSizeBytes"] == stored.file_size_bytes


async def test_the_same_file_again_is_already_stored_and_changes_nothing(
    ingest: Ingest, database: Database
) -> None:
    [first] = await ingest.store([sent("ct.dcm", content("CT_small.dcm"))])
    before = await database["studies"].find_one()
    [again] = await ingest.store([sent("again.dcm", content("CT_small.dcm"))])
    assert (again.status, again.ids) == (StoreStatus.ALREADY_STORED, first.ids)
    assert await database["studies"].find_one() == before


async def test_what_orthanc_has_and_mongodb_has_not_is_indexed(
    ingest: Ingest, database: Database
) -> None:
    await ingest.store([sent("ct.dcm", content("CT_small.dcm"))])
    for level in ("patients", "studies", "series", "instances"):
        await database[level].delete_many({})
    [again] = await ingest.store([sent("ct.dcm", content("CT_small.dcm"))])
    assert again.status is StoreStatus.ALREADY_STORED
    study = await database["studies"].find_one()
    assert study is not None
    assert study["numberOfInstances"] == 1


async def test_other_content_under_the_same_uids_conflicts_and_the_first_stays(
    ingest: Ingest, client: OrthancClient, database: Database
) -> None:
    [first] = await ingest.store([sent("a.dcm", content("CT_small.dcm"))])
    assert first.instance_id is not None
    digest = await client.dicom_md5(first.instance_id)
    [other] = await ingest.store([sent("b.dcm", variant("CT_small.dcm", StationName="other"))])
    assert outcomes([other]) == [("b.dcm", "CONFLICT", "CONTENT_CONFLICT")]
    assert other.ids == first.ids
    assert await client.dicom_md5(first.instance_id) == digest
    assert await database["instances"].count_documents({}) == 1


async def test_an_override_is_in_the_stored_file_and_in_the_index(
    ingest: Ingest, client: OrthancClient, database: Database
) -> None:
    override = PatientOverride(patient_id="PAT001", patient_name="Doe^Jörg")
    [result] = await ingest.store([sent("ct.dcm", content("CT_small.dcm"))], override)
    assert result.status is StoreStatus.STORED
    assert result.instance_id is not None
    async with client.instance_file(result.instance_id) as chunks:
        stored = pydicom.dcmread(io.BytesIO(b"".join([chunk async for chunk in chunks])))
    assert stored.PatientID == "PAT001"
    study = await database["studies"].find_one()
    assert study is not None
    assert (study["_id"], study["patientID"]) == (result.study_id, "PAT001")
    assert study["patientName"] == "Doe^Jörg" == str(stored.PatientName)


async def test_an_override_that_is_sent_again_is_already_stored(
    ingest: Ingest, client: OrthancClient
) -> None:
    override = PatientOverride(patient_id="PAT001", patient_name="Doe^Jörg")
    for name in ("CT_small.dcm", "image_dfl.dcm"):
        [first] = await ingest.store([sent(name, content(name))], override)
        [again] = await ingest.store([sent(name, content(name))], override)
        assert (first.status, again.status) == (StoreStatus.STORED, StoreStatus.ALREADY_STORED)
        changed = variant("CT_small.dcm", StationName="other")
    [other] = await ingest.store([sent("other.dcm", changed)], override)
    assert other.status is StoreStatus.CONFLICT
    assert (await client.statistics()).instances == 2


async def test_an_override_onto_the_id_of_somebody_else_needs_a_confirmation(
    client: OrthancClient, files: OrthancFiles, database: Database
) -> None:
    storage = FileStorage(
        client,
        files,
        Indexer(database).index,
        WalkLimits(),
        find_names=partial(load_patient_names, database),
    )
    ingest = Ingest(storage, limits=ArchiveLimits(), concurrency=4)
    own_id = "1CT1"
    await ingest.store([sent("ct.dcm", content("CT_small.dcm"))])
    mr = [sent("mr.dcm", content("MR_small.dcm"))]
    for override in (
        PatientOverride(own_id),
        PatientOverride(f"\u00a0{own_id} "),
        PatientOverride(own_id, "Doe^Jane"),
    ):
        [result] = await ingest.store(mr, override)
        assert outcomes([result]) == [("mr.dcm", "REJECTED", "PATIENT_MISMATCH")]
        assert result.error is not None
        assert "confirmPatient: true" in result.error.message
    assert (await client.statistics()).instances == 1
    # Case and repeated spaces are no other name; a new PatientID is nobody else's.
    for override in (
        PatientOverride(own_id, "compressedsamples^ct1"),
        PatientOverride("NEW", "Doe^Jane"),
        PatientOverride(own_id, "Doe^John", is_confirmed=True),
    ):
        study_uid = f"1.2.826.0.1.3680043.8.498.{len(str(override))}"
        mr = [sent("mr.dcm", variant("MR_small.dcm", SOPInstanceUID=study_uid))]
        [result] = await ingest.store(mr, override)
        assert outcomes([result]) == [("mr.dcm", "STORED", None)]


async def test_an_override_that_is_no_value_is_refused_before_anything_is_stored(
    ingest: Ingest, client: OrthancClient
) -> None:
    with pytest.raises(InvalidInput):
        await ingest.store(
            [sent("ct.dcm", content("CT_small.dcm"))], PatientOverride(patient_id="a\\b")
        )
    assert (await client.statistics()).instances == 0


async def test_bad_files_are_rejected_and_their_neighbours_stored(
    ingest: Ingest, database: Database
) -> None:
    results = await ingest.store(
        [
            sent("note.txt", b"no DICOM at all, but text that goes on for a while\n" * 10),
            sent("good.dcm", content("CT_small.dcm")),
            sent("empty.dcm", b""),
            sent("cut.dcm", content("MR_small.dcm")[:5000]),
            sent("no-uid.dcm", variant("MR_small.dcm", SOPInstanceUID=None)),
            sent("multi.dcm", content("emri_small.dcm")),
        ]
    )
    assert [(r.file_name, r.status) for r in results] == [
        ("note.txt", "REJECTED"),
        ("good.dcm", "STORED"),
        ("empty.dcm", "REJECTED"),
        ("cut.dcm", "REJECTED"),
        ("no-uid.dcm", "REJECTED"),
        ("multi.dcm", "STORED"),
    ]
    assert all(result.error for result in results if result.status == "REJECTED")
    assert results[-1].frame_count == 10
    assert await database["instances"].count_documents({}) == 2


async def test_members_of_an_archive_take_its_place(ingest: Ingest) -> None:
    packed = archive(
        [
            ("__MACOSX/._ct.dcm", b"x"),
            ("DICOMDIR", b"x"),
            ("study/ct.dcm", content("CT_small.dcm")),
            ("readme.txt", b"hello, this is no DICOM file but a text\n" * 10),
            ("inner.zip", archive([("a", b"a")])),
            ("../../mr.dcm", content("MR_small.dcm")),
        ]
    )
    results = await ingest.store(
        [sent("all.zip", packed), sent("multi.dcm", content("emri_small.dcm"))]
    )
    assert outcomes(results) == [
        ("all.zip/study/ct.dcm", "STORED", None),
        ("all.zip/readme.txt", "REJECTED", "NOT_DICOM"),
        ("all.zip/inner.zip", "REJECTED", "NESTED_ARCHIVE"),
        ("all.zip/../../mr.dcm", "STORED", None),
        ("multi.dcm", "STORED", None),
    ]


async def test_without_orthanc_every_file_fails_and_nothing_is_indexed(
    database: Database,
) -> None:
    nowhere = ("http://127.0.0.1:1", "", "")
    async with open_http_client(*nowhere) as http, open_orthanc_files(*nowhere) as away:
        index = Indexer(database).index
        storage = FileStorage(OrthancClient(http), away, index, WalkLimits(), return_seconds=0.5)
        ingest = Ingest(storage, limits=ArchiveLimits(), concurrency=4)
        results = await ingest.store(
            [
                sent("ct.dcm", content("CT_small.dcm")),
                sent("mr.dcm", content("MR_small.dcm")),
            ]
        )
    assert outcomes(results) == [
        ("ct.dcm", "FAILED", "ORTHANC_UNAVAILABLE"),
        ("mr.dcm", "FAILED", "ORTHANC_UNAVAILABLE"),
    ]
    assert results[0].error is not None
    assert results[0].error.message.startswith("Failed to upload to Orthanc PACS")
    assert await database["instances"].count_documents({}) == 0


async def test_without_mongodb_the_file_is_in_orthanc_and_the_result_says_so(
    client: OrthancClient, files: OrthancFiles
) -> None:
    async def broken(_entries: Sequence[IndexRecord]) -> None:
        raise DatabaseUnavailable

    storage = FileStorage(client, files, broken, WalkLimits())
    ingest = Ingest(storage, limits=ArchiveLimits(), concurrency=4)
    [result] = await ingest.store([sent("ct.dcm", content("CT_small.dcm"))])
    assert outcomes([result]) == [("ct.dcm", "FAILED", "DATABASE_UNAVAILABLE")]
    assert result.error is not None
    assert "is stored in Orthanc PACS" in result.error.message
    assert (await client.statistics()).instances == 1


@pytest.mark.parametrize(
    ("fault", "code", "told"),
    [
        (RecordRefused("Beyond it."), "LIMIT_EXCEEDED", "Beyond it."),
        (KeyError("Doe^Jane"), "INTERNAL_ERROR", "is stored in Orthanc PACS"),
    ],
)
async def test_a_file_that_can_not_be_indexed_fails_alone_and_is_said_to_be_stored(
    client: OrthancClient,
    files: OrthancFiles,
    database: Database,
    *,
    fault: Exception,
    code: str,
    told: str,
) -> None:
    indexer = Indexer(database)

    async def index(entries: Sequence[IndexRecord]) -> None:
        if any(entry.header.series.modality == "MR" for entry in entries):
            raise fault
        await indexer.index(entries)

    storage = FileStorage(client, files, index, WalkLimits())
    ingest = Ingest(storage, limits=ArchiveLimits(), concurrency=4)
    results = await ingest.store(
        [sent("ct.dcm", content("CT_small.dcm")), sent("mr.dcm", content("MR_small.dcm"))]
    )
    assert outcomes(results) == [("ct.dcm", "STORED", None), ("mr.dcm", "FAILED", code)]
    assert results[1].error is not None
    assert told in results[1].error.message
    assert "Jane" not in results[1].error.message


async def test_frames_are_counted_in_the_file_and_orthanc_is_not_asked(
    empty_orthanc: EmbeddedOrthanc, database: Database
) -> None:
    sent_bytes: list[bytes] = []
    port = urlsplit(empty_orthanc.url).port or 0
    async with run_slow_proxy(port, note=sent_bytes.append) as proxy:
        orthanc = (f"http://127.0.0.1:{proxy.port}", empty_orthanc.username, empty_orthanc.password)
        async with open_http_client(*orthanc) as http, open_orthanc_files(*orthanc) as files:
            storage = FileStorage(OrthancClient(http), files, Indexer(database).index, WalkLimits())
            ingest = Ingest(storage, limits=ArchiveLimits(), concurrency=4)
            results = await ingest.store(
                [
                    sent("ct.dcm", content("CT_small.dcm")),
                    sent("multi.dcm", content("emri_small.dcm")),
                ]
            )
    assert outcomes(results) == [("ct.dcm", "STORED", None), ("multi.dcm", "STORED", None)]
    assert [result.frame_count for result in results] == [1, 10]
    # Each file is sent, and then its revision is asked for.
    asked = re.findall(rb"([A-Z]+ \S+) HTTP/1\.1\r\n", b"".join(sent_bytes))
    assert asked.count(b"POST /instances") == 2
    assert set(asked) == {b"POST /instances", b"POST /tools/bulk-content"}


async def test_a_mongodb_that_is_away_is_not_asked_for_each_file(
    client: OrthancClient, files: OrthancFiles
) -> None:
    calls: list[int] = []

    async def index(entries: Sequence[IndexRecord]) -> None:
        calls.append(len(entries))
        raise DatabaseUnavailable if len(calls) > 1 else RecordRefused

    storage = FileStorage(client, files, index, WalkLimits())
    ingest = Ingest(storage, limits=ArchiveLimits(), concurrency=4)
    results = await ingest.store(
        [
            sent(f"{number}.dcm", variant("CT_small.dcm", SOPInstanceUID=f"1.2.3.{number}"))
            for number in range(4)
        ]
    )
    assert {outcome[1:] for outcome in outcomes(results)} == {("FAILED", "DATABASE_UNAVAILABLE")}
    assert calls == [4, 1]


async def test_pacs_integration_that_is_off_refuses_uploads() -> None:
    ingest = Ingest(None, limits=ArchiveLimits(), concurrency=4)
    with pytest.raises(PacsDisabled):
        await ingest.store([sent("ct.dcm", b"")])


async def test_many_files_of_one_study_at_once_are_counted_right(
    ingest: Ingest, database: Database
) -> None:
    files = [
        sent(f"{number}.dcm", variant("CT_small.dcm", SOPInstanceUID=f"1.2.3.{number}"))
        for number in range(1, 31)
    ]
    results = await ingest.store(files)
    assert [result.file_name for result in results] == [file.name for file in files]
    assert {result.status for result in results} == {StoreStatus.STORED}
    study = await database["studies"].find_one()
    assert study is not None
    assert (study["numberOfInstances"], study["numberOfSeries"]) == (30, 1)
