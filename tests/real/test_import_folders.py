"""`import`: every file once, resumable, with a report."""

import json
import zipfile
from pathlib import Path

import pytest

from services.dicom.layout import WalkLimits
from services.importing.folders import walk_files
from services.importing.journal import Journal
from services.importing.outcome import FileOutcome
from services.importing.report import Report
from services.importing.run import ImportRun
from services.ingest.results import StoreResult
from services.ingest.service import Ingest, SentFile
from services.runtime import Runtime
from tests.real.sync_stage import instance_bytes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of three images, an archive of two, a README, and a broken image."""
    root = tmp_path / "disk"
    (root / "deep" / "er").mkdir(parents=True)
    for number in (1, 2):
        (root / f"{number}.dcm").write_bytes(instance_bytes(1, 1, number))
    (root / "deep" / "er" / "3").write_bytes(instance_bytes(1, 1, 3))
    with zipfile.ZipFile(root / "more.zip", "w") as archive:
        for number in (4, 5):
            archive.writestr(f"{number}.dcm", instance_bytes(1, 1, number))
    (root / "README.txt").write_text("Read me.")
    (root / "broken.dcm").write_bytes(instance_bytes(1, 1, 6)[:-1000])
    return root


async def test_a_folder_is_imported_and_what_fails_is_reported(
    runtime: Runtime, folder: Path, tmp_path: Path
) -> None:
    report_path = tmp_path / "report.jsonl"
    with Journal(tmp_path / "journal.sqlite3") as journal, Report(report_path) as report:
        importing = _importing(runtime, journal)
        await importing.count([folder])
        async for outcome in importing.outcomes([folder]):
            report.add(outcome)
        report.finish(importing.tally)
    assert await runtime.database["instances"].count_documents({}) == 5
    lines = [json.loads(line) for line in report_path.read_text().splitlines()]
    assert [(line["status"], Path(line["path"]).name, line["code"]) for line in lines[:-1]] == [
        ("skipped", "README.txt", "NOT_DICOM"),
        ("failed", "broken.dcm", "TRUNCATED"),
    ]
    assert lines[-1] == {
        "summary": {"done": 6, "stored": 5, "already_stored": 0, "skipped": 1, "failed": 1}
    }
    assert (importing.tally.total, importing.tally.is_total_known) == (6, True)


async def test_a_second_run_sends_nothing_that_is_there(
    runtime: Runtime, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal(tmp_path / "journal.sqlite3") as journal:
        await _all(_importing(runtime, journal), folder)
        sent = _count_sent(runtime, monkeypatch)
        again = _importing(runtime, journal)
        await _all(again, folder)
        # README.txt and the broken image are looked at again, and that is all.
        assert sorted(sent) == ["README.txt", "broken.dcm"]
        assert (again.tally.stored, again.tally.already_stored) == (0, 5)


async def test_a_file_that_changed_or_vanished_from_orthanc_is_sent_again(
    runtime: Runtime, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert runtime.orthanc is not None
    assert runtime.deletion is not None
    with Journal(tmp_path / "journal.sqlite3") as journal:
        [first, *_] = await _all(_importing(runtime, journal), folder / "1.dcm")
        await _all(_importing(runtime, journal), folder / "2.dcm")
        await runtime.orthanc.delete("instances", first.instance_ids[0])
        await runtime.indexer.remove(first.instance_ids)
        (folder / "2.dcm").write_bytes(instance_bytes(1, 1, 22))
        sent = _count_sent(runtime, monkeypatch)
        for name in ("1.dcm", "2.dcm"):
            await _all(_importing(runtime, journal), folder / name)
    assert sent == ["1.dcm", "2.dcm"]
    assert await runtime.database["instances"].count_documents({}) == 3


async def test_a_run_that_is_stopped_goes_on_where_it_was(
    runtime: Runtime, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal(tmp_path / "journal.sqlite3") as journal:
        outcomes = _importing(runtime, journal).outcomes([folder])
        await anext(outcomes)
        await outcomes.aclose()
        sent = _count_sent(runtime, monkeypatch)
        await _all(_importing(runtime, journal), folder)
    assert "1.dcm" not in sent
    assert await runtime.database["instances"].count_documents({}) == 5


async def test_a_dry_run_stores_and_notes_nothing(
    runtime: Runtime, folder: Path, tmp_path: Path
) -> None:
    with Journal(tmp_path / "journal.sqlite3") as journal:
        importing = _importing(runtime, journal)
        outcomes = await _all(importing, folder, is_dry=True)
        assert journal.look_up([outcome.file for outcome in outcomes]) == {}
    assert await runtime.database["instances"].count_documents({}) == 0
    assert (importing.tally.skipped, importing.tally.failed) == (1, 1)


async def test_a_missing_path_fails_and_the_others_go_on(
    runtime: Runtime, folder: Path, tmp_path: Path
) -> None:
    with Journal(tmp_path / "journal.sqlite3") as journal:
        importing = _importing(runtime, journal)
        paths = [folder / "nowhere.dcm", folder / "1.dcm"]
        outcomes = [outcome async for outcome in importing.outcomes(paths)]
    assert [refusal.code for refusal in outcomes[0].failed] == ["FILE_UNREADABLE"]
    assert outcomes[1].stored == 1


async def test_any_number_of_instances_is_looked_up(runtime: Runtime, tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(instance_bytes(1, 1, 1))
    with Journal(tmp_path / "journal.sqlite3") as journal:
        journal.record([(next(walk_files([path])), [f"{n:044}" for n in range(300_000)])])
        [outcome] = await _all(_importing(runtime, journal), path)
    assert outcome.stored == 1


def _importing(runtime: Runtime, journal: Journal) -> ImportRun:
    return ImportRun(runtime.ingest, runtime.database, journal, concurrency=2, limits=WalkLimits())


async def _all(importing: ImportRun, path: Path, *, is_dry: bool = False) -> list[FileOutcome]:
    return [outcome async for outcome in importing.outcomes([path], is_dry=is_dry)]


def _count_sent(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    sent: list[str] = []
    store = type(runtime.ingest).store

    async def counting(ingest: Ingest, files: list[SentFile]) -> list[StoreResult]:
        sent.extend(file.name for file in files)
        return await store(ingest, files)

    monkeypatch.setattr(type(runtime.ingest), "store", counting)
    return sent
