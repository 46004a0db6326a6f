"""A file says the same whichever way it came: uploaded here, or sent to Orthanc by C-STORE."""

import asyncio
import io
import struct
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
import pydicom.data
import pytest
from pydicom.charset import python_encoding
from pydicom.data import get_testdata_file
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, _config

from services.dicom.character_sets import decode, encodings_of
from services.dicom.checking import CheckedFile, check_file
from services.dicom.layout import WalkLimits
from services.dicom.person_names import clean_person_name
from services.embedded.mongod import EmbeddedMongod
from services.embedded.orthanc import EmbeddedOrthanc, run_orthanc
from services.embedded.orthanc_configuration import DicomServer
from services.embedded.ports import find_free_port
from services.ingest.archives import ArchiveLimits
from services.ingest.results import StoreStatus
from services.ingest.service import Ingest, SentFile
from services.ingest.storing import FileStorage
from services.orthanc.beginning import PIXEL_DATA_BYTES
from tests.real.conftest import emptied
from tests.real.sync_stage import Stage, open_stage

NAMES = {
    "": ["Doe^Jane", "Müller^Jörg", "O\u2019Neil^Zoë"],
    "ISO_IR 100": ["Buc^Jérôme", "Müller^Jörg", "Ångström^Åsa"],
    "ISO_IR 101": ["Łukasiewicz^Żółć", "Dvořák^Antonín"],
    "ISO_IR 109": ["Ċetta^Ġorġ", "Ħaż-Żebbuġ"],
    "ISO_IR 110": ["Kļaviņš^Ģirts", "Žemaitė^Ąžuolas"],
    "ISO_IR 126": ["Διονυσιος", "Παπαδόπουλος^Γιώργος"],
    "ISO_IR 127": ["قباني^لنزار"],
    "ISO_IR 138": ["שרון^דבורה"],
    "ISO_IR 144": ["Люкceмбypг", "Иванова^Мария"],  # noqa: RUF001
    "ISO_IR 148": ["Çavuşoğlu^I\u015f\u0131k", "Öztürk^Gül"],
    "ISO_IR 166": ["สมชาย^ใจดี"],
    "ISO_IR 203": ["Œuvrard^Zoë", "Šimek^€uro"],
    "ISO_IR 13": ["ﾔﾏﾀﾞ^ﾀﾛｳ"],
    "ISO_IR 192": ["Wang^XiaoDong=王^小東", "Nguyễn^Văn An", "Müller^Jörg", "김^희중"],
    "GB18030": ["Wang^XiaoDong=王^小东", "欧阳^娜娜"],
    "GBK": ["Wang^XiaoDong=王^小东", "李^四"],
}
"""By character set (PS3.3 C.12.1.1.2), names that it can write."""

ESCAPED = [
    ("\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"),
    (
        "ISO 2022 IR 13\\ISO 2022 IR 87",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J",
    ),
    (
        "\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
    ),
    ("\\ISO 2022 IR 58", b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab"),
    ("ISO 2022 IR 6\\ISO 2022 IR 100", b"Buc^J\x1b-A\xe9r\xf4me"),
    ("ISO 2022 IR 100\\ISO 2022 IR 144", b"M\xfcller^\x1b-L\xbb\xee\xda"),
    ("ISO 2022 IR 100\\ISO 2022 IR 126", b"M\xfcller^\x1b-F\xc4\xe9\xef\xed"),
]
"""Sets with escape sequences, and names in them."""

MISSPELT = [
    *("ISO-IR 100", "ISO_IR_100", "iso_ir 100", "ISO IR 100", "ISO_IR100", "ISO8859-1", "LATIN1"),
    *("UTF-8", "utf8", "ISO IR 192", "ISO_IR  192", "UNICODE", "ISO-IR 144", "ISO 8859-5"),
    *("ISO2022 IR 87", "nonsense", "ISO_IR 999", "ISO 2022 IR 100", "GB 18030", "windows-1252"),
]
CONTRADICTED = [
    b"M\xc3\xbcller^J\xc3\xb6rg",  # UTF-8
    b"\xe7\x8e\x8b^\xe5\xb0\x8f\xe6\x9d\xb1",  # UTF-8 of three bytes a letter
    b"O\x92Neil^Zo\xeb",  # Windows-1252
    b"M\xfcller^J\xf6rg",  # Latin-1
    b"\xc8\xd6\xe2\xf0^\xbb\xee",  # anything
    b"\xff\xfe^\x81",
]
DECLARED = [*NAMES, "\\ISO 2022 IR 87", "ISO 2022 IR 100\\ISO 2022 IR 144", "UTF-8", "nonsense"]


def _values() -> list[tuple[str, bytes]]:
    """Return 200 pairs of a character set and a name in bytes."""
    codecs = {**python_encoding, "ISO_IR 203": "iso8859_15", "": "latin_1"}
    values: list[tuple[str, bytes]] = []
    for declared, names in NAMES.items():
        for name in names:
            try:
                values.append((declared, name.encode(codecs[declared])))
            except UnicodeEncodeError:
                values.append((declared, name.encode("cp1252")))
    values += ESCAPED
    values += [(declared, name) for declared in DECLARED for name in CONTRADICTED]
    values += [
        (declared, name)
        for declared in MISSPELT
        for name in (b"M\xfcller^J\xf6rg", "Müller^Jörg".encode(), b"Doe^Jane", b"\xbb\xee\xda")
    ]
    assert len(values) >= 200
    return values[:220]


def _file(number: int, declared: str, name: bytes) -> bytes:
    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    del dataset.PixelData, dataset.DataSetTrailingPadding, dataset.SpecificCharacterSet
    del dataset.PatientName, dataset.OtherPatientIDsSequence
    dataset.Rows = dataset.Columns = 2
    dataset.PixelData = bytes(8)
    for keyword, level in (
        ("StudyInstanceUID", 1),
        ("SeriesInstanceUID", 2),
        ("SOPInstanceUID", 3),
    ):
        setattr(dataset, keyword, f"1.2.826.0.1.3680043.8.498.77.{level}.{number}")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.PatientID = f"P{number}"
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    content = buffer.getvalue()
    charset = declared.encode() + b" " * (len(declared) % 2)
    place = content.index(b"\x08\0\x08\0CS")
    if declared:
        element = b"\x08\0\x05\0CS" + struct.pack("<H", len(charset)) + charset
        content = content[:place] + element + content[place:]
    place = content.index(b"\x10\0\x20\0LO")
    padded = name + b" " * (len(name) % 2)
    elements = b"\x10\0\x10\0PN" + struct.pack("<H", len(padded)) + padded
    return content[:place] + elements + content[place:]


@pytest.fixture(autouse=True)
def _bytes_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pynetdicom send files without reading them first."""
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)


@pytest.fixture(scope="module")
async def started(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[EmbeddedOrthanc, int]]:
    port = find_free_port()
    folder = tmp_path_factory.mktemp("orthanc")
    async with run_orthanc(
        folder / "orthanc", dicom=DicomServer(port, unknown_may_store=True)
    ) as running:
        yield running, port


@pytest.fixture
async def orthanc(started: tuple[EmbeddedOrthanc, int]) -> tuple[EmbeddedOrthanc, int]:
    """An empty Orthanc and the port of its DICOM server, where everybody may store."""
    await emptied(started[0])
    return started


def _send(port: int, folder: Path) -> None:
    """Send all files of a folder by C-STORE, their bytes as they are."""
    entity = AE()
    entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", port, ae_title="ORTHANC")
    assert association.is_established
    for path in sorted(folder.iterdir()):
        status = association.send_c_store(path)
        assert status.Status == 0, path.name
    association.release()


async def _documents(stage: Stage) -> dict[str, list[dict[str, Any]]]:
    left_out = dict.fromkeys(
        ("indexedAt", "latestIndexedAt", "createdAt", "updatedAt", "version"), 0
    ) | dict.fromkeys(("revision", "fileSizeBytes", "thumbnail.revision", "studyStatements"), 0)
    return {
        name: [found async for found in stage.database[name].find({}, left_out).sort("_id")]
        for name in ("instances", "series", "studies", "patients")
    }


@pytest.mark.no_cover
async def test_two_hundred_files_say_the_same_by_upload_and_by_c_store(
    mongodb: EmbeddedMongod, orthanc: tuple[EmbeddedOrthanc, int], tmp_path: Path
) -> None:
    server, port = orthanc
    folder = tmp_path / "files"
    folder.mkdir()
    for number, (declared, name) in enumerate(_values()):
        (folder / f"{number:03}.dcm").write_bytes(_file(number, declared, name))
    async with open_stage(mongodb, server) as stage:
        storage = FileStorage(stage.orthanc, stage.files, stage.indexer.index, WalkLimits())
        limits = ArchiveLimits(max_members=1, max_bytes=1, max_ratio=1)
        ingest = Ingest(storage, limits=limits, concurrency=4)
        results = await ingest.store(
            [SentFile.from_path(path) for path in sorted(folder.iterdir())]
        )
        assert {result.status for result in results} == {StoreStatus.STORED}
        uploaded = await _documents(stage)
        await emptied(server)
        await stage.indexer.remove(list(await stage.instance_ids()))
        assert not await stage.instance_ids()
        await asyncio.to_thread(_send, port, folder)
        await stage.sync.reconciler.reconcile(await stage.held_ids())
        arrived = await _documents(stage)
    assert len(uploaded["instances"]) >= 200
    for collection, documents in uploaded.items():
        for one, other in zip(documents, arrived[collection], strict=True):
            assert one == other
    names = {one["patientID"]: one["patientName"] for one in arrived["patients"]}
    assert names == {f"P{number}": _expected(*value) for number, value in enumerate(_values())}


def _expected(declared: str, name: bytes) -> str | None:
    return clean_person_name(decode(name, encodings_of(declared)))


async def test_a_file_that_would_stop_orthanc_is_recognised_by_its_bytes(
    mongodb: EmbeddedMongod, orthanc: tuple[EmbeddedOrthanc, int], tmp_path: Path
) -> None:
    server, port = orthanc
    folder = tmp_path / "nested"
    folder.mkdir()
    content = _file(1, "", b"Doe^Jane")
    item = b""
    for _ in range(60):
        inner = struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item
        item = b"\x40\0\x75\x02SQ\0\0" + struct.pack("<I", len(inner)) + inner
    place = content.index(b"\xe0\x7f\x10\0OW")
    (folder / "nested.dcm").write_bytes(content[:place] + item + content[place:])
    (folder / "other.dcm").write_bytes(_file(2, "", b"Doe^John"))
    async with open_stage(mongodb, server) as stage:
        await asyncio.to_thread(_send, port, folder)
        held = await stage.held_ids()
        assert len(held) == 2
        done = await stage.sync.reconciler.reconcile(held)
        assert len(done.indexed) == 1
        assert list(done.faults.values()) == [
            "The sequences of this file are nested deeper than 24 levels."
        ]
        assert (await stage.http.get("/system")).is_success


async def test_of_a_large_file_only_the_beginning_is_read(
    mongodb: EmbeddedMongod, orthanc: tuple[EmbeddedOrthanc, int]
) -> None:
    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = 1_024, 1_024, 4
    dataset.PixelData = bytes(2 * 4 * 1_024 * 1_024)
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    server, _ = orthanc
    async with open_stage(mongodb, server) as stage:
        ids = await stage.send([buffer.getvalue()])
        (stored,) = await stage.orthanc.stored_files(ids)
        assert stored.pixel_data_offset is not None
        sizes: list[int | None] = []

        def check(beginning: BinaryIO, file_size: int | None) -> CheckedFile:
            sizes.extend((beginning.seek(0, 2), file_size))
            return check_file(beginning, file_size=file_size)

        read = await stage.files.beginnings.read(stored, check, pixel_data_bytes=PIXEL_DATA_BYTES)
        assert sizes == [stored.pixel_data_offset + PIXEL_DATA_BYTES, stored.file_size_bytes]
        whole = check_file(buffer)
        assert (read.number_of_frames, whole.number_of_frames) == (4, 4)
        # Padding follows the pixel data of the whole file.
        assert replace(read.header, pixel_data_bytes=None) == replace(
            whole.header, pixel_data_bytes=None
        )
        done = await stage.sync.reconciler.reconcile(ids)
        assert done.indexed == set(ids)
