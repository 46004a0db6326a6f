"""The examination of real stores."""

import secrets
from pathlib import Path

import pytest
from pydantic import SecretStr

from services.database import open_database
from services.doctor.examination import examine
from services.doctor.findings import Finding, Verdict
from services.settings import Settings


async def examined(settings: Settings, **changed: object) -> dict[str, list[Finding]]:
    findings: dict[str, list[Finding]] = {}
    async for finding in examine(settings.model_copy(update=changed)):
        findings.setdefault(finding.part, []).append(finding)
    return findings


async def test_real_stores_are_fine(settings: Settings) -> None:
    findings = await examined(settings)
    broken = [f for part in findings.values() for f in part if f.verdict is Verdict.PROBLEM]
    assert broken == []
    assert findings["MongoDB"][0].message.endswith("takes writes, has change streams")
    assert findings["Orthanc"][0].message.endswith("lets us in")


async def test_the_examination_leaves_nothing_in_mongodb(settings: Settings) -> None:
    unknown = f"unknown{secrets.token_hex(4)}"
    await examined(settings, mongodb_database=unknown)
    assert settings.mongodb_url is not None
    async with open_database(settings.mongodb_url.get_secret_value(), "other") as database:
        assert unknown not in await database.client.list_database_names()
        await database.client.drop_database("other")


async def test_a_wrong_orthanc_password_names_the_setting(settings: Settings) -> None:
    findings = await examined(settings, orthanc_password=SecretStr("wrong"))
    (finding,) = findings["Orthanc"]
    assert finding.verdict is Verdict.PROBLEM
    assert finding.message == (
        "Orthanc authentication failed. Check ORTHANC_USERNAME and ORTHANC_PASSWORD on the server."
    )


async def test_a_wrong_mongodb_password_names_the_setting(settings: Settings) -> None:
    assert settings.mongodb_url is not None
    url = settings.mongodb_url.get_secret_value()
    user, _, rest = url.removeprefix("mongodb://").partition(":")
    wrong = f"mongodb://{user}:wrong@{rest.partition('@')[2]}"
    findings = await examined(settings, mongodb_url=SecretStr(wrong))
    (finding,) = findings["MongoDB"]
    assert finding.verdict is Verdict.PROBLEM
    assert finding.message.startswith("MongoDB authentication failed")
    assert "wrong" not in finding.message


async def test_pacs_integration_that_is_off_is_fine(settings: Settings) -> None:
    findings = await examined(settings, enable_pacs_integration=False)
    assert findings["Orthanc"][0].verdict is Verdict.OK


async def test_embedded_stores_are_started_for_the_examination(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MONGODB_URL", "ORTHANC_URL"):
        monkeypatch.delenv(name, raising=False)
    findings = await examined(Settings(_env_file=None, data_dir=tmp_path / "data"))
    assert findings["MongoDB"][0].verdict is Verdict.OK
    assert findings["Orthanc"][0].verdict is Verdict.OK
