"""Whether there may be credentials is known before a store is started."""

from pathlib import Path

from services.connections import can_have_credentials
from services.settings import Settings


def test_a_new_data_directory_can_have_no_credentials(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path)
    assert not can_have_credentials(settings)
    provider = {"oidc_issuer": "https://id.example.org", "oidc_audience": "pacs"}
    assert can_have_credentials(settings.model_copy(update=provider))
    (tmp_path / "tokens.json").touch()
    assert can_have_credentials(settings)
    (tmp_path / "tokens.json").rename(tmp_path / "mongodb")
    assert can_have_credentials(settings)
