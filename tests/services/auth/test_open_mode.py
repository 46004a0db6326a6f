"""Which servers may start without credentials."""

from pathlib import Path
from typing import Any

import pytest

from services.auth.authenticator import Authenticator
from services.auth.open_mode import (
    OpenServerRefused,
    reason_to_stay_closed,
    refuse_open_start,
    remember_credentials,
)
from tests.tokens import cache_of, made_token, read_cache_of


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({}, None),
        ({"public_url": "http://localhost:8000"}, None),
        ({"public_url": "http://[::1]:8000/x"}, None),
        ({"public_url": "https://pacs.example.org"}, "PUBLIC_URL names another host"),
        ({"public_url": "https://localhost.example.org"}, "PUBLIC_URL names another host"),
        ({"trusted_proxies": ["127.0.0.1"]}, "TRUSTED_PROXIES is set"),
        ({"tokens_file": Path("lost.json")}, r"TOKENS_FILE is set \(lost.json\)"),
        ({"allowed_origins": ["https://a.example"]}, None),
        ({"allowed_origins": ["https://a.example", "*"]}, "CORS_ALLOWED_ORIGINS"),
    ],
)
def test_signs_of_others_keep_a_server_closed(
    tmp_path: Path, more: dict[str, Any], reason: str | None
) -> None:
    found = reason_to_stay_closed(tmp_path, **more)
    if reason is None:
        assert found is None
        refuse_open_start(found, host="127.0.0.1")
        return
    with pytest.raises(OpenServerRefused, match=f"{reason}.*orthanc-graphql token create"):
        refuse_open_start(found, host="127.0.0.1")


def test_lost_credentials_do_not_open_the_server(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    assert reason_to_stay_closed(data_dir) is None
    remember_credentials(data_dir)
    remember_credentials(data_dir)
    reason = reason_to_stay_closed(data_dir)
    with pytest.raises(OpenServerRefused, match=r"has lost them.*delete the file .*data/had-cred"):
        refuse_open_start(reason, host="127.0.0.1")
    (data_dir / "had-credentials").unlink()
    assert reason_to_stay_closed(data_dir) is None


def test_a_data_directory_that_takes_no_file_stops_no_server(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    remember_credentials(tmp_path / "file" / "data")


async def test_nobody_is_let_in_where_others_could_come() -> None:
    authenticator = Authenticator(cache_of(), closed_because="PUBLIC_URL names another host")
    assert not authenticator.is_open
    assert await authenticator.authenticate(None) is None
    assert await authenticator.authenticate("Bearer ogql_x") is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "pacs.example.org", ""])  # noqa: S104  # refused is the point
def test_an_open_server_is_refused_beyond_loopback(host: str) -> None:
    with pytest.raises(OpenServerRefused, match="orthanc-graphql token create"):
        refuse_open_start(None, host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_an_open_server_may_listen_on_loopback(host: str) -> None:
    refuse_open_start(None, host=host)


async def test_a_server_with_credentials_is_not_open() -> None:
    authenticator = Authenticator(await read_cache_of(made_token("ann")[0]))
    assert (authenticator.has_credentials, authenticator.is_open) == (True, False)
    assert Authenticator(cache_of()).is_open
