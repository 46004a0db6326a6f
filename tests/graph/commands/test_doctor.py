import json
from collections.abc import AsyncIterator

import pytest
from click.testing import CliRunner, Result

from graph.cli import main
from graph.commands import doctor
from services.doctor.findings import Finding, ok, problem, warning
from services.settings import Settings


def examined(monkeypatch: pytest.MonkeyPatch, *findings: Finding, as_json: bool = False) -> Result:
    async def examine(_settings: Settings) -> AsyncIterator[Finding]:
        for finding in findings:
            yield finding

    monkeypatch.setattr(doctor, "examine", examine)
    return CliRunner().invoke(main, ["doctor", *(["--json"] if as_json else [])])


def test_each_part_has_a_plain_line(monkeypatch: pytest.MonkeyPatch) -> None:
    result = examined(monkeypatch, ok("Python", "3.11.7"), warning("Orthanc", "is old."))
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "ok       Python             3.11.7",
        "warning  Orthanc            is old.",
    ]


def test_a_broken_part_fails_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    result = examined(monkeypatch, problem("MongoDB", "is away."), ok("Orthanc", "1.13.0"))
    assert result.exit_code == 1
    assert len(result.output.splitlines()) == 2


def test_programs_get_one_object_per_line(monkeypatch: pytest.MonkeyPatch) -> None:
    result = examined(monkeypatch, problem("MongoDB", "is away."), as_json=True)
    assert result.exit_code == 1
    assert json.loads(result.output) == {
        "part": "MongoDB",
        "verdict": "problem",
        "message": "is away.",
    }


def test_a_wrong_setting_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTHANC_URL", "ftp://orthanc")
    result = examined(monkeypatch)
    assert result.exit_code == 1
    assert result.output.startswith("problem  Settings           ORTHANC_URL: must start with")


def test_a_misspelt_setting_is_told_before_the_one_that_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ORTHANC_URL", "http://orthanc:8042")
    monkeypatch.setenv("FRAME_URL_KEY", "k1:key")
    first, second = examined(monkeypatch).output.splitlines()[:2]
    assert first == (
        "warning  Settings           FRAME_URL_KEY in the environment is no setting. "
        "Did you mean FRAME_URL_KEYS?"
    )
    assert second.startswith("problem  Settings           FRAME_URL_KEYS is required")
