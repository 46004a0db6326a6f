"""What the doctor says about the folders of the worklist and of backups."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from services.backup.catalogue import MANIFEST, Manifest, begin, finish, mark_verified
from services.doctor.findings import ok, problem, warning
from services.doctor.folders import examine_backups, examine_worklist_folder

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


def test_a_worklist_folder_must_take_files(tmp_path: Path) -> None:
    assert examine_worklist_folder(tmp_path) == ok("Worklist folder", str(tmp_path))
    missing = tmp_path / "missing"
    assert examine_worklist_folder(missing) == problem(
        "Worklist folder",
        f"{missing} takes no files (No such file or directory). Create it so that this server may "
        "write and Orthanc may read it: docs/worklist.md",
    )


def test_a_recent_backup_is_well(tmp_path: Path) -> None:
    how = f"Make one every night: orthanc-graphql backup {tmp_path}"
    assert examine_backups(tmp_path, NOW) == warning(
        "Backups", f"There is none in {tmp_path}. {how}"
    )
    name, partial = begin(tmp_path, NOW)
    manifest = Manifest(
        created_at=NOW,
        release="1",
        collections={},
        orthanc=None,
        number_of_studies=0,
        number_of_instances=0,
    )
    finish(tmp_path, name, partial, manifest)
    said = f"1 in {tmp_path}, the newest {name}"
    assert examine_backups(tmp_path, NOW) == ok("Backups", f"{said}, not verified yet")
    mark_verified(tmp_path, name, NOW)
    assert examine_backups(tmp_path, NOW) == ok("Backups", f"{said}, verified")
    late = NOW + timedelta(days=8)
    newest = f"The newest in {tmp_path} is {name}. {how}"
    assert examine_backups(tmp_path, late) == warning("Backups", newest)
    (tmp_path / name / MANIFEST).write_text("{")
    damaged = f"{tmp_path} can't be read: The manifest of the backup {name} is damaged."
    assert examine_backups(tmp_path, NOW) == problem("Backups", damaged)
