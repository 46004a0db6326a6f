from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import respx

from services.auth.oidc import OidcRules
from services.doctor import mongodb, orthanc
from services.doctor.exposure import (
    examine_credentials,
    examine_frame_url_keys,
    examine_public_url,
    judge_tokens,
)
from services.doctor.findings import Finding, Verdict
from services.doctor.machine import examine_data_dir, examine_python
from services.orthanc.answers import SystemInfo
from tests.tokens import made_token

NOW = datetime(2026, 1, 2, tzinfo=UTC)
PRIMARY = {"setName": "rs0", "isWritablePrimary": True}


def system(version: str) -> SystemInfo:
    return SystemInfo(version=version, api_version=1, dicom_aet="ORTHANC")


def verdicts(findings: list[Finding]) -> list[tuple[str, Verdict]]:
    return [(finding.part, finding.verdict) for finding in findings]


def test_an_old_python_is_a_problem() -> None:
    assert examine_python((3, 10, 9)).verdict is Verdict.PROBLEM
    assert examine_python((3, 11, 0)).verdict is Verdict.OK


def test_a_data_directory_is_made_and_left_empty(tmp_path: Path) -> None:
    finding = examine_data_dir(tmp_path / "a" / "b", needed_bytes=1)
    assert finding.verdict is not Verdict.PROBLEM
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_data_directory_that_is_a_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    finding = examine_data_dir(tmp_path / "file")
    assert finding.verdict is Verdict.PROBLEM
    assert "set DATA_DIR" in finding.message


def test_a_full_disk_is_a_problem(tmp_path: Path) -> None:
    finding = examine_data_dir(tmp_path, needed_bytes=2**60)
    assert finding.verdict is Verdict.PROBLEM
    assert "too little" in finding.message


def test_a_primary_of_a_new_release_is_fine() -> None:
    assert mongodb.judge(PRIMARY, "6.0.5") == []


@pytest.mark.parametrize(
    ("hello", "version", "expected"),
    [
        (PRIMARY, "4.4.1", "too old"),
        ({"isWritablePrimary": True}, "6.0.5", "not a replica set"),
        ({"setName": "rs0", "isWritablePrimary": False}, "6.0.5", "no primary"),
    ],
)
def test_a_mongodb_that_does_not_do_is_a_problem(
    hello: dict[str, object], version: str, expected: str
) -> None:
    (finding,) = mongodb.judge(hello, version)
    assert finding.verdict is Verdict.PROBLEM
    assert expected in finding.message


THREE = {"hosts": ["a:27017", "b:27017", "c:27017"]}


@pytest.mark.parametrize(
    ("hello", "configuration", "verdict", "words"),
    [
        ({"hosts": ["a:27017"]}, None, Verdict.OK, "one member"),
        ({"hosts": ["a:27017", "b:27017"]}, None, Verdict.WARNING, "rs.add"),
        (THREE, None, Verdict.OK, "may not read rs.conf()"),
        (THREE, {}, Verdict.WARNING, "cfg.settings.electionTimeoutMillis = 2000; rs.reconfig"),
        (THREE, {"settings": {"electionTimeoutMillis": 2000}}, Verdict.OK, "after 2 s"),
        ({"msg": "isdbgrid"}, None, Verdict.OK, "sharded"),
    ],
)
def test_the_set_is_judged_by_how_it_goes_on_without_its_primary(
    hello: dict[str, object],
    configuration: dict[str, object] | None,
    verdict: Verdict,
    words: str,
) -> None:
    finding = mongodb.judge_replica_set(hello, configuration)
    assert finding.verdict is verdict
    assert words in finding.message


async def test_what_is_no_connection_string_is_a_problem() -> None:
    (finding,) = await mongodb.examine_mongodb("http://localhost:27017", "x")
    assert finding.message.startswith("MONGODB_URL is no connection string")


def test_missing_rights_and_other_refusals_say_what_to_do() -> None:
    assert "readWrite" in mongodb.explain_refusal(13)
    assert "error 91" in mongodb.explain_refusal(91)


def test_a_new_orthanc_is_fine() -> None:
    assert verdicts(orthanc.judge(system("1.12.11"))) == [("Orthanc", Verdict.OK)]


def test_a_vulnerable_orthanc_is_a_warning() -> None:
    findings = orthanc.judge(system("1.12.10"))
    assert verdicts(findings) == [("Orthanc", Verdict.OK), ("Orthanc", Verdict.WARNING)]
    assert "Upgrade to 1.12.11" in findings[1].message


@pytest.mark.parametrize(("version", "is_told"), [("1.12.9", True), ("1.12.10", False)])
def test_an_embedded_orthanc_that_listens_on_all_interfaces_is_a_warning(
    version: str, is_told: bool
) -> None:
    embedded = orthanc.judge(system(version), is_embedded=True)
    assert any("listens on all interfaces" in finding.message for finding in embedded) is is_told
    assert len(embedded) - len(orthanc.judge(system(version))) == is_told


async def test_a_wrong_password_names_the_settings_to_look_at(respx_mock: respx.MockRouter) -> None:
    respx_mock.get("http://orthanc.test/system").respond(401)
    (finding,) = await orthanc.examine_orthanc("http://orthanc.test", "u", "wrong")
    assert finding.verdict is Verdict.PROBLEM
    assert finding.message.startswith("Orthanc authentication failed")
    assert "ORTHANC_USERNAME" in finding.message
    assert "ORTHANC_PASSWORD" in finding.message
    assert "wrong" not in finding.message


async def test_an_orthanc_that_is_away_is_a_problem() -> None:
    (finding,) = await orthanc.examine_orthanc("http://127.0.0.1:9", "", "")
    assert finding.verdict is Verdict.PROBLEM
    assert "Check ORTHANC_URL" in finding.message


async def test_an_embedded_orthanc_that_is_away_names_no_setting() -> None:
    url, advice = "http://127.0.0.1:9", orthanc.ADVICE_EMBEDDED
    (finding,) = await orthanc.examine_orthanc(url, "", "", advice=advice)
    assert finding.message.endswith(advice)
    assert "ORTHANC_URL" not in finding.message


async def test_no_credentials_mean_this_machine_only() -> None:
    (finding,) = await examine_credentials([], oidc=None, now=NOW)
    assert finding.verdict is Verdict.OK
    assert "this machine only" in finding.message


async def test_a_provider_that_is_away_is_a_problem() -> None:
    rules = OidcRules("http://127.0.0.1:9", "a")
    findings = await examine_credentials([], oidc=rules, now=NOW)
    assert verdicts(findings) == [("OpenID provider", Verdict.PROBLEM)]


def test_tokens_that_are_all_expired_are_a_warning() -> None:
    valid, _ = made_token("a")
    expired, _ = made_token("b", lifetime=timedelta())
    revoked = made_token("c")[0].model_copy(update={"revoked_at": NOW})
    assert judge_tokens([valid, expired, revoked], NOW).message == "tokens: 1 valid, 1 expired"
    assert judge_tokens([expired], NOW).verdict is Verdict.WARNING


@pytest.mark.parametrize(
    ("url", "has_credentials", "expected"),
    [
        (None, False, Verdict.OK),
        ("http://localhost:8000", False, Verdict.OK),
        ("https://pacs.example.org", False, Verdict.PROBLEM),
        ("https://pacs.example.org", True, Verdict.OK),
        ("http://pacs.example.org", True, Verdict.WARNING),
    ],
)
def test_a_public_address_needs_credentials_and_encryption(
    url: str | None, *, has_credentials: bool, expected: Verdict
) -> None:
    assert examine_public_url(url, has_credentials=has_credentials).verdict is expected


def test_a_key_that_is_too_short_is_a_problem_and_not_shown() -> None:
    finding = examine_frame_url_keys("k1:c2hvcnQ")
    assert finding.verdict is Verdict.PROBLEM
    assert "c2hvcnQ" not in finding.message
    assert examine_frame_url_keys(None).verdict is Verdict.OK
