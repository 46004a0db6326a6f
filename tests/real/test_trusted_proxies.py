"""Whose word on a client's address the audit trail takes."""

from pathlib import Path

import pytest
from pymongo import AsyncMongoClient

from services.auth.roles import Role
from services.settings import Settings
from tests.clients import http_client
from tests.real.shell import Served, Shell, served
from tests.real.sync_stage import eventually
from tests.tokens import write_tokens_file

FORWARDED = {"X-Forwarded-For": "198.51.100.7, 203.0.113.9"}
"""What the client claims to be, and who the proxy saw."""


async def recorded_address(server: Served, settings: Settings) -> str:
    """Be refused with forwarded addresses; answers the one that the trail has."""
    async with http_client(server.url) as http:
        assert (await http.get("/frames/v2/forged", headers=FORWARDED)).status_code == 403
    assert settings.mongodb_url is not None
    found: list[str] = []

    async with AsyncMongoClient[dict[str, str]](settings.mongodb_url.get_secret_value()) as client:

        async def is_recorded() -> bool:
            records = client[settings.mongodb_database]["audit"].find({"action": "refusal"})
            found[:] = [record["clientAddress"] async for record in records]
            return bool(found)

        await eventually(is_recorded)
    [address] = found
    return address


@pytest.mark.parametrize(
    ("trusted", "address"),
    [
        ("", "127.0.0.1"),
        ("10.0.0.0/8, 127.0.0.1", "203.0.113.9"),
    ],
)
async def test_only_trusted_proxies_tell_who_the_client_is(
    settings: Settings, tmp_path: Path, trusted: str, address: str
) -> None:
    shell = Shell.on_stores_of(settings, tmp_path)
    # uvicorn's own variable must not open what the setting keeps closed.
    shell.environment.update(TRUSTED_PROXIES=trusted, FORWARDED_ALLOW_IPS="*")
    # Behind a proxy no server is open.
    write_tokens_file(tmp_path / "tokens.json", {"viewer": Role.VIEWER})
    async with served(shell) as server:
        assert await recorded_address(server, settings) == address
