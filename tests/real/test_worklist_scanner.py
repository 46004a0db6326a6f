"""A scanner asks Orthanc's worklist plugin by `findscu -W` for what was planned in GraphQL."""

import asyncio
import io
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pydicom
import pytest

from models.worklist import WorklistStatus
from services.auth.scope import ALL
from services.embedded.mongod import EmbeddedMongod
from services.embedded.orthanc import EmbeddedOrthanc, run_orthanc
from services.embedded.orthanc_configuration import DicomServer
from services.embedded.ports import find_free_port
from services.ingest.service import SentFile
from services.orthanc.identifiers import orthanc_ids
from services.runtime import Runtime, enter_worklist, open_runtime
from services.sync.lease import Lease
from services.worklist.arrivals import WorklistArrivals
from services.worklist.entry import EntryValues
from services.worklist.folder import WorklistFolder
from tests.patience import PATIENCE_SECONDS
from tests.real.sync_stage import eventually, instance_bytes, modality_client
from tests.servers import settings_on

FINDSCU = shutil.which("findscu", path="/usr/bin:/usr/local/bin:/opt/homebrew/bin") or "findscu"
"""DCMTK's, not the one of pynetdicom in the virtual environment."""

RETURNED = ("0008,0050", "0010,0010", "0010,0020", "0020,000D")
"""AccessionNumber, PatientName, PatientID, StudyInstanceUID."""
STEP = "0040,0100[0]."


@dataclass(frozen=True, slots=True)
class Department:
    """A server with its worklist, and a scanner.

    Attributes:
        port: Orthanc's DICOM port.
        folder: What the plugin reads.
    """

    runtime: Runtime
    orthanc: EmbeddedOrthanc
    port: int
    folder: Path

    async def ask(self, *keys: str, aet: str = "CT1") -> list[pydicom.Dataset]:
        """Ask as a scanner does; answers in the order of their accession numbers."""
        answers = self.folder.with_name("answers")
        shutil.rmtree(answers, ignore_errors=True)
        answers.mkdir()
        given = {key.partition("=")[0]: key for key in (*RETURNED, "0008,0005=ISO_IR 192", *keys)}
        options = [part for key in given.values() for part in ("-k", key)]
        scanner = await asyncio.create_subprocess_exec(
            *(FINDSCU, "-W", "-X", "-od", str(answers), "-aet", aet, "-aec", "ORTHANC"),
            *options,
            *("127.0.0.1", str(self.port)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(scanner.communicate(), PATIENCE_SECONDS)
        assert scanner.returncode == 0, output.decode(errors="replace")
        assert b"Failed" not in output, output.decode(errors="replace")
        found = [pydicom.dcmread(path, force=True) for path in answers.iterdir()]
        return sorted(found, key=lambda one: str(one.AccessionNumber))

    async def accessions(self, *keys: str) -> list[str]:
        """Return the accession numbers of what is answered."""
        return [str(one.AccessionNumber) for one in await self.ask(*keys)]

    async def plan(self, accession_number: str, **fields: Any) -> str:
        """Plan an examination; answers its identifier."""
        values = {
            "patient_id": f"P-{accession_number}",
            "patient_name": "Huber^Anna",
            "modality": "CT",
            "scheduled_procedure_step_start_date": "2026-03-31",
            **fields,
        }
        entry = EntryValues(accession_number=accession_number, **values)
        return (await self.runtime.worklist.create(entry, ALL)).id

    async def set_status(self, entry_id: str, status: WorklistStatus) -> None:
        await self.runtime.worklist.set_status(entry_id, status, ALL)


@pytest.fixture(scope="module")
async def opened(
    mongodb: EmbeddedMongod, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Department]:
    folder, port = tmp_path_factory.mktemp("department"), find_free_port()
    async with AsyncExitStack() as stack:
        orthanc = await stack.enter_async_context(
            run_orthanc(
                folder / "orthanc",
                dicom=DicomServer(port, unknown_may_store=True),
                worklist_folder=folder / "worklist",
                stable_age_seconds=1,
            )
        )
        settings = settings_on(mongodb, orthanc, folder).model_copy(
            update={"worklist_folder": folder / "worklist", "study_stable_seconds": 0.2}
        )
        runtime = await stack.enter_async_context(open_runtime(settings))
        async with modality_client(orthanc) as http:
            scanner = {"AET": "CT1", "Host": "127.0.0.1", "Port": 104, "AllowFindWorklist": True}
            (await http.put("/modalities/CT1", json=scanner)).raise_for_status()
        await enter_worklist(stack, runtime)

        async def is_written() -> bool:
            writer = runtime.worklist_folder
            return writer is not None and writer._written is not None

        await eventually(is_written)
        yield Department(runtime, orthanc, port, folder / "worklist")
        await runtime.database.client.drop_database(settings.mongodb_database)


@pytest.fixture
async def department(opened: Department) -> Department:
    for name in ("worklist", "studies"):
        await opened.runtime.database[name].delete_many({})
    folder = opened.runtime.worklist_folder
    assert folder is not None
    await folder.refresh()
    assert list(opened.folder.iterdir()) == []
    return opened


async def test_a_scanner_finds_entries_by_every_matching_key(department: Department) -> None:
    await department.plan(
        "A1",
        patient_id="PID1",
        patient_birth_date="1960-02-03",
        patient_sex="F",
        scheduled_station_ae_title="CT1",
        scheduled_procedure_step_start_time="08:30:00",
        requested_procedure_id="RP1",
        scheduled_procedure_step_id="SP1",
        study_instance_uid="1.2.3",
        scheduled_performing_physician_name="Strahler^Max",
    )
    await department.plan(
        "A2",
        patient_name="Maier^Bert",
        modality="MR",
        scheduled_station_ae_title="MR1",
        scheduled_procedure_step_start_date="2026-04-01",
        scheduled_procedure_step_start_time="14:00:00",
    )
    both, first, second, none = ["A1", "A2"], ["A1"], ["A2"], list[str]()
    for keys, expected in {
        (): both,
        ("0010,0010=Huber*",): first,
        ("0010,0010=huber^anna",): first,
        ("0010,0020=PID1",): first,
        ("0008,0050=A2",): second,
        ("0020,000D=1.2.3",): first,
        ("0040,1001=RP1",): first,
        (STEP + "0008,0060=MR",): second,
        (STEP + "0008,0060=CT\\MR",): both,
        (STEP + "0008,0060=US",): none,
        (STEP + "0040,0001=CT1",): first,
        (STEP + "0040,0002=20260331",): first,
        (STEP + "0040,0002=20260401-",): second,
        (STEP + "0040,0002=20260331-20260401",): both,
        (STEP + "0040,0003=080000-120000",): first,
        (STEP + "0040,0006=Strahler*",): first,
        (STEP + "0040,0009=SP1",): first,
        (STEP + "0008,0060=CT", STEP + "0040,0002=20260401"): none,
    }.items():
        assert await department.accessions(*keys) == expected, keys


async def test_a_scanner_gets_everything_that_was_planned(department: Department) -> None:
    await department.plan(
        "A1",
        patient_id="PID1",
        patient_birth_date="1960-02-03",
        patient_sex="F",
        study_instance_uid="1.2.3",
        requested_procedure_description="Schädel",
        scheduled_procedure_step_start_time="08:30:00",
        scheduled_procedure_step_description="nativ",
    )
    [found] = await department.ask(
        *("0010,0030", "0010,0040", "0010,1030", "0008,0090", "0032,1060", "0040,1001"),
        *(STEP + key for key in ("0008,0060", "0040,0002", "0040,0003", "0040,0007", "0040,0009")),
    )
    assert str(found.PatientName) == "Huber^Anna"
    assert (found.PatientID, found.PatientBirthDate, found.PatientSex) == ("PID1", "19600203", "F")
    assert found.StudyInstanceUID == "1.2.3"
    assert found.RequestedProcedureDescription == "Schädel"
    assert str(found.RequestedProcedureID).startswith("RP")
    [step] = found.ScheduledProcedureStepSequence
    assert (step.Modality, step.ScheduledProcedureStepStartDate) == ("CT", "20260331")
    assert step.ScheduledProcedureStepStartTime == "083000"
    assert step.ScheduledProcedureStepDescription == "nativ"
    assert str(step.ScheduledProcedureStepID).startswith("SP")


async def test_names_of_every_script_are_found_and_come_back(department: Department) -> None:
    names = {
        "A1": "Müller^Jörg",
        "A2": "Yamada^Tarou=山田^太郎=やまだ^たろう",
        "A3": "Łukasz^Żółć",
        "A4": "Жюль^Верн",
        "A5": "Hong^Gildong=洪^吉洞=홍^길동",
        "A6": "محمد^رضا",
        "A7": "ราชวงศ์^จักรี",
    }
    for accession, name in names.items():
        await department.plan(accession, patient_name=name)
    found = await department.ask()
    assert {str(one.AccessionNumber): str(one.PatientName) for one in found} == names
    assert {one.SpecificCharacterSet for one in found} == {"ISO_IR 192"}
    for key, expected in {
        "müller*": ["A1"],
        "MÜLLER*": ["A1"],
        "*山田*": ["A2"],
        "Łukasz*": ["A3"],
        "Жюль*": ["A4"],
        "*홍*": ["A5"],
        "محمد*": ["A6"],
        "ราชวงศ์*": ["A7"],
    }.items():
        assert await department.accessions(f"0010,0010={key}") == expected, key


async def test_only_open_entries_are_served_and_each_change_counts_at_once(
    department: Department,
) -> None:
    entry = await department.plan("A1")
    for status, expected in (
        (WorklistStatus.IN_PROGRESS, ["A1"]),
        (WorklistStatus.COMPLETED, []),
        (WorklistStatus.SCHEDULED, ["A1"]),
        (WorklistStatus.DISCONTINUED, []),
        (WorklistStatus.SCHEDULED, ["A1"]),
    ):
        await department.set_status(entry, status)
        assert await department.accessions() == expected, status
    changed = EntryValues(
        accession_number="B1",
        patient_id="P-A1",
        patient_name="Huber^Anna",
        modality="CT",
        scheduled_procedure_step_start_date="2026-03-31",
    )
    await department.runtime.worklist.update(entry, changed, ALL)
    assert await department.accessions() == ["B1"]
    await department.runtime.worklist.delete(entry, ALL)
    assert await department.accessions() == []


async def test_a_change_of_another_process_and_a_lost_file_are_repaired(
    department: Department, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.worklist.folder._WHOLE_SECONDS", 0.0)
    entry = await department.plan("A1")
    database = department.runtime.database
    await database["worklist"].update_one({}, {"$set": {"status": "COMPLETED", "version": "x"}})

    async def is_gone() -> bool:
        return list(department.folder.iterdir()) == []

    await eventually(is_gone)
    await database["worklist"].update_one({}, {"$set": {"status": "SCHEDULED", "version": "y"}})
    path = department.folder / f"{entry}.wl"

    async def is_there() -> bool:
        return path.is_file()

    await eventually(is_there)
    path.unlink()
    await eventually(is_there)


async def test_the_folder_is_rebuilt_and_files_of_others_stay(
    department: Department, tmp_path: Path
) -> None:
    entry = await department.plan("A1")
    content = (department.folder / f"{entry}.wl").read_bytes()
    stale = tmp_path / ("0" * 32 + ".wl")
    stale.write_bytes(content)
    (tmp_path / f".{entry}.wl.tmp").write_bytes(b"half")
    (tmp_path / "other.wl").write_bytes(b"of another system")
    (tmp_path / f"{entry}.wl").write_bytes(b"of an earlier version")
    folder = WorklistFolder(department.runtime.database, tmp_path)
    folder._lease = Lease(department.runtime.database, "another-folder")
    writing = asyncio.create_task(folder.run())

    async def is_rebuilt() -> bool:
        return not stale.exists()

    await eventually(is_rebuilt)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert contents(tmp_path) == {"other.wl": b"of another system", f"{entry}.wl": content}
    assert (tmp_path / f"{entry}.wl").stat().st_mode & 0o777 == 0o640


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def test_an_entry_completes_itself_when_its_study_is_stable(department: Department) -> None:
    """By the UID that the scanner got, or else by accession number, patient and modality."""
    uid = "1.2.826.0.1.3680043.8.498"
    entries = {
        "A1": await department.plan("A1", patient_id="P1", study_instance_uid=f"{uid}.1"),
        "A2": await department.plan("A2", patient_id="P2", study_instance_uid=f"{uid}.2"),
        "A3": await department.plan("A3", patient_id="P3"),
        "A4": await department.plan("A4", patient_id="P4", modality="MR"),
    }
    sent = [
        image(1, "P1", ""),
        image(2, "another patient", "A2"),
        image(3, "P3", "A3"),
        image(4, "P4", "A4"),
    ]
    await department.runtime.ingest.store(
        [SentFile(str(number), partial(io.BytesIO, content)) for number, content in enumerate(sent)]
    )

    async def are_completed() -> bool:
        return await department.accessions() == ["A2", "A4"]

    await eventually(are_completed)
    found = await department.runtime.worklist.find(entries["A1"], ALL)
    assert found is not None
    assert found.status is WorklistStatus.COMPLETED
    assert found.orthanc_study_id == orthanc_ids("P1", f"{uid}.1", "", "").study
    # Opened again it waits for new images.
    await department.set_status(entries["A1"], WorklistStatus.SCHEDULED)
    arrivals = WorklistArrivals(department.runtime.database, stable_seconds=0, on_changed=None)
    await arrivals.complete(None)
    assert await department.accessions() == ["A1", "A2", "A4"]


def image(study: int, patient: str, accession_number: str) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(instance_bytes(study, 1, 1, patient=patient)))
    dataset.AccessionNumber = accession_number
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


async def test_a_study_that_came_while_no_server_ran_completes_its_entry(
    department: Department,
) -> None:
    """The first look goes back to when the oldest open entry was opened."""
    runtime = department.runtime
    later = datetime.now(UTC) + timedelta(days=1)
    arrivals = WorklistArrivals(
        runtime.database, stable_seconds=30, on_changed=None, now=lambda: later
    )
    until = await arrivals.complete(None)
    assert until == later - timedelta(seconds=30)
    entry = await department.plan("A1", patient_id="P1", study_instance_uid="1.2.3")
    study = {
        "_id": "study",
        "patientID": "P1",
        "studyInstanceUID": "1.2.3",
        "modalitiesInStudy": ["CT"],
        "updatedAt": datetime.now(UTC) + timedelta(minutes=1),
    }
    await runtime.database["studies"].insert_one(study)
    assert await arrivals.complete(until) == until
    assert await department.accessions() == ["A1"]
    await arrivals.complete(None)
    found = await runtime.worklist.find(entry, ALL)
    assert found is not None
    assert found.orthanc_study_id == "study"
