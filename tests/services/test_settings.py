from pathlib import Path

import pytest
from pydantic import ValidationError

from services.settings import Settings

KEYS = "k1:" + "A" * 43


def test_the_environment_names_are_those_of_the_system_that_this_replaces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ORTHANC_URL", "http://orthanc:8042/")
    monkeypatch.setenv("ORTHANC_USERNAME", "orthanc")
    monkeypatch.setenv("ORTHANC_PASSWORD", "secret")
    monkeypatch.setenv("ENABLE_PACS_INTEGRATION", "false")
    monkeypatch.setenv("FRAME_URL_KEYS", KEYS)
    settings = Settings(_env_file=None)
    assert settings.orthanc_url == "http://orthanc:8042"
    assert settings.orthanc_username == "orthanc"
    assert settings.orthanc_password.get_secret_value() == "secret"
    assert settings.enable_pacs_integration is False
    assert not settings.embeds_orthanc


def test_given_stores_need_keys() -> None:
    with pytest.raises(ValidationError, match="FRAME_URL_KEYS is required"):
        Settings(_env_file=None, mongodb_url="mongodb://db")


def test_empty_values_of_a_compose_file_count_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.setenv(name.upper(), "")
    settings = Settings(_env_file=None)
    assert settings.orthanc_dicom_port is None
    assert settings.cors_allowed_origins is None
    assert settings.is_fully_embedded
    assert settings.public_url is None


def test_an_address_without_scheme_is_refused() -> None:
    with pytest.raises(ValidationError, match="must start with http"):
        Settings(_env_file=None, orthanc_url="orthanc:8042", frame_url_keys=KEYS)


def test_secrets_are_not_shown() -> None:
    settings = Settings(_env_file=None, mongodb_url="mongodb://u:hunter2@db", frame_url_keys=KEYS)
    assert "hunter2" not in repr(settings)
    assert KEYS not in repr(settings)


def test_settings_can_not_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings(_env_file=None).data_dir = Path("/elsewhere")  # type: ignore[misc]  # frozen


def test_origins_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORS_ALLOWED_ORIGINS", "https://a.example, https://b.example")
    assert Settings(_env_file=None).cors_allowed_origins == [
        "https://a.example",
        "https://b.example",
    ]


@pytest.mark.parametrize("proxies", ["*", "proxy.example.org", "10.0.0.5/8", "10.0.0.5 10.0.0.6"])
def test_a_proxy_that_is_no_address_is_refused(
    proxies: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUSTED_PROXIES", proxies)
    with pytest.raises(ValidationError, match="trusted_proxies"):
        Settings(_env_file=None)


@pytest.mark.parametrize(
    "name", [name for name, field in Settings.model_fields.items() if field.default is None]
)
def test_what_may_be_absent_is_absent_when_it_is_blank(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name.upper(), "  ")
    assert getattr(Settings(_env_file=None), name) is None
