from pathlib import Path

import pytest

from services.installation.setting_typos import find_setting_typos, read_setting_typos
from services.settings import Settings

SETTINGS = [name.upper() for name in Settings.model_fields]

FOREIGN = [
    "AWS_WEB_IDENTITY_TOKEN_FILE", "DATABASE_URL", "DATADIR", "HOME", "MONGODB_DATA_DIR",
    "MONGODB_HOST", "MONGODB_PASSWORD", "MONGODB_PORT", "MONGODB_PORT_27017_TCP",
    "MONGODB_ROOT_USER", "MONGODB_SERVICE_HOST", "MONGODB_USERNAME", "MONGODB_VERSION",
    "MONGO_INITDB_DATABASE", "MONGO_INITDB_ROOT_PASSWORD", "MONGO_INITDB_ROOT_USERNAME",
    "MONGO_MAJOR", "MONGO_PACKAGE", "MONGO_VERSION", "NEXT_PUBLIC_URL", "ORTHANC_JSON",
    "ORTHANC_NAME", "ORTHANC_PORT", "ORTHANC_PORT_8042_TCP", "ORTHANC_SERVICE_HOST",
    "ORTHANC_SERVICE_PORT", "ORTHANC_VERSION", "ORTHANC__DICOM_PORT", "ORTHANC__NAME", "PATH",
    "PGDATA", "PUBLIC_HOST", "TOKEN_FILE", "UPLOAD_MAX_FILESIZE", "XDG_DATA_DIRS",
]  # fmt: skip


def found(
    *, in_file: list[str] | None = None, in_environment: list[str] | None = None
) -> list[str]:
    return find_setting_typos(
        settings=SETTINGS, in_file=in_file or [], in_environment=in_environment or []
    )


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("CORS_ALLOWED_ORIGIN", "CORS_ALLOWED_ORIGINS"),
        ("FRAME_URL_KEY", "FRAME_URL_KEYS"),
        ("MONGODB_URI", "MONGODB_URL"),
        ("MONGO_URL", "MONGODB_URL"),
        ("ORTHANC_PASS", "ORTHANC_PASSWORD"),
        ("ORTHANC_USER", "ORTHANC_USERNAME"),
        ("TRUSTED_PROXY", "TRUSTED_PROXIES"),
    ],
)
def test_a_misspelt_setting_is_reported_with_what_it_may_mean(name: str, meant: str) -> None:
    question = f"is no setting. Did you mean {meant}?"
    assert found(in_file=[name]) == [f"{name} in .env {question}"]
    assert found(in_environment=[name]) == [f"{name} in the environment {question}"]


@pytest.mark.parametrize("name", FOREIGN)
def test_names_of_others_in_the_environment_are_left_alone(name: str) -> None:
    assert found(in_environment=[name]) == []


def test_a_name_that_is_given_beside_the_setting_is_of_another_program() -> None:
    assert found(in_environment=["MONGODB_URI", "MONGODB_URL"]) == []
    assert found(in_environment=["MONGODB_URI"], in_file=["MONGODB_URL"]) == []


def test_the_file_is_ours_so_that_more_of_it_is_reported() -> None:
    assert found(in_environment=["MONGO_URI"]) == []
    assert found(in_file=["MONGO_URI"]) == [
        "MONGO_URI in .env is no setting. Did you mean MONGODB_URL?"
    ]


def test_what_containers_read_from_the_file_is_left_alone() -> None:
    assert found(in_file=["ORTHANC_IMAGE", "ORTHANC__NAME", "MONGO_INITDB_DATABASE"]) == []


def test_no_setting_is_misspelt() -> None:
    assert found(in_file=SETTINGS, in_environment=SETTINGS) == []


def test_the_file_and_the_environment_are_read_as_for_the_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("export orthanc_user=a\nMONGO_URL=\n", encoding="utf-8")
    monkeypatch.setenv("CORS_ALLOWED_ORIGIN", "https://a.example")
    monkeypatch.setenv("FRAME_URL_KEY", "")
    assert read_setting_typos() == [
        "ORTHANC_USER in .env is no setting. Did you mean ORTHANC_USERNAME?",
        "CORS_ALLOWED_ORIGIN in the environment is no setting. Did you mean CORS_ALLOWED_ORIGINS?",
    ]
