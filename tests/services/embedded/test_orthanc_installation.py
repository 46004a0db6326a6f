from pathlib import Path

import pytest

from services.embedded.failures import NotInstalled
from services.embedded.orthanc_installation import (
    OrthancInstallation,
    find_orthanc,
    find_plugins,
    parse_release,
)


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("Orthanc 1.10.1\nCopyright (C) 2012", (1, 10, 1)),
        ("Orthanc 1.13.0", (1, 13, 0)),
        ("Orthanc mainline (20260101T000000)", None),
        ("", None),
    ],
)
def test_the_release_is_read_from_what_orthanc_prints(
    text: str, release: tuple[int, int, int] | None
) -> None:
    assert parse_release(text) == release


def test_without_orthanc_the_message_says_how_to_get_it() -> None:
    with pytest.raises(NotInstalled) as caught:
        find_orthanc(binaries=["/nowhere/Orthanc"])
    assert caught.value.message == (
        "There is no Orthanc for the embedded store. Install it with: "
        "sudo apt-get install orthanc orthanc-dicomweb orthanc-gdcm - "
        "or set ORTHANC_URL to use another one, or use compose.yaml."
    )


def test_an_old_orthanc_is_refused(tmp_path: Path) -> None:
    binary = _program(tmp_path, "echo Orthanc 1.9.7")
    with pytest.raises(NotInstalled, match=r"Orthanc 1\.9\.7 is too old"):
        find_orthanc(binaries=[binary])


def test_an_orthanc_that_does_not_run_is_refused(tmp_path: Path) -> None:
    binary = _program(tmp_path, "exit 127")
    with pytest.raises(NotInstalled, match="does not run"):
        find_orthanc(binaries=[binary])


def test_orthanc_is_found_with_its_plugins(tmp_path: Path) -> None:
    binary = _program(tmp_path, "echo Orthanc 1.12.4")
    plugin = tmp_path / "libOrthancGdcm.so"
    plugin.touch()
    found = find_orthanc(binaries=["/nowhere/Orthanc", binary], plugin_folders=[str(tmp_path)])
    assert found == OrthancInstallation(Path(binary), (1, 12, 4), (plugin,))


def test_plugins_beside_the_program_come_before_those_of_packages(tmp_path: Path) -> None:
    """An unpacked root file system, a prefix such as /usr/local, or one folder with everything."""
    for binary, plugins in (
        ("unpacked/Orthanc", "unpacked/usr/share/orthanc/plugins"),
        ("local/sbin/Orthanc", "local/share/orthanc/plugins"),
        ("lsb/Orthanc", "lsb"),
    ):
        program, folder = tmp_path / binary, tmp_path / plugins
        program.parent.mkdir(parents=True)
        folder.mkdir(parents=True, exist_ok=True)
        program.write_text("#!/bin/sh\necho Orthanc 1.13.0\n")
        program.chmod(0o755)
        (folder / "libOrthancGdcm.so").touch()
        found = find_orthanc(binaries=[str(program)])
        assert found.plugins == (folder / "libOrthancGdcm.so",), binary


def test_orthanc_may_be_named_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = _program(tmp_path, "echo Orthanc 1.12.4")
    monkeypatch.setenv("ORTHANC_BINARY", binary)
    assert find_orthanc().binary == Path(binary)


def test_one_of_two_plugins_for_the_worklist_is_loaded(tmp_path: Path) -> None:
    newer = tmp_path / "libOrthancWorklists.so"
    newer.touch()
    assert find_plugins([str(tmp_path)]) == (newer,)
    older = tmp_path / "libModalityWorklists.so"
    older.touch()
    assert find_plugins([str(tmp_path)]) == (older,)


def test_plugins_that_we_do_not_know_are_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "libServeFolders.so").touch()
    assert find_plugins([str(tmp_path / "missing"), str(tmp_path)]) == ()


def _program(folder: Path, script: str) -> str:
    binary = folder / "Orthanc"
    binary.write_text(f"#!/bin/sh\n{script}\n")
    binary.chmod(0o755)
    return str(binary)
