"""Tokens in a real MongoDB: created, revoked, taken over, and made by the command line."""

import asyncio
import errno
import logging
import os
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pymongo.asynchronous.database import AsyncDatabase

from services.auth.authenticator import Authenticator, open_authenticator
from services.auth.roles import LOCAL_ADMIN, Principal, Role
from services.auth.tokens import TokenStore, digest_of
from services.auth.tokens_file import TokensFileError
from services.database import open_database
from services.embedded.mongod import run_mongod
from services.errors import DatabaseUnavailable, InvalidInput, NotFound
from services.settings import Settings
from tests.clients import http_client
from tests.patience import PATIENCE_SECONDS
from tests.real.shell import Shell, served
from tests.real.sync_stage import eventually
from tests.tokens import write_tokens_file

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[AsyncDatabase[dict[str, Any]]]:
    assert settings.mongodb_url is not None
    url = settings.mongodb_url.get_secret_value()
    async with open_database(url, settings.mongodb_database) as opened:
        yield opened


@pytest.fixture
def store(database: AsyncDatabase[dict[str, Any]]) -> TokenStore:
    return TokenStore(database)


async def create(store: TokenStore, name: str = "ward 3", **more: Any) -> str:
    return await store.create(name=name, role=Role.VIEWER, now=NOW, **more)


async def test_a_token_is_stored_as_its_hash_only(
    store: TokenStore, database: AsyncDatabase[dict[str, Any]]
) -> None:
    secret = await create(store, lifetime=timedelta(days=3))
    assert secret.startswith("ogql_")
    assert len(secret) == len("ogql_") + 43
    assert await database["tokens"].find().to_list() == [
        {
            "_id": "ward 3",
            "role": "viewer",
            "sha256": digest_of(secret),
            "createdAt": NOW,
            "expiresAt": NOW + timedelta(days=3),
        }
    ]
    assert await create(store, "ward 4") != secret


async def test_a_name_is_taken_until_its_token_is_revoked(store: TokenStore) -> None:
    first = await create(store)
    with pytest.raises(InvalidInput, match="already"):
        await create(store)
    await store.revoke("ward 3", now=NOW)
    second = await create(store)
    (token,) = await store.read_all()
    assert (token.sha256, token.revoked_at) == (digest_of(second), None)
    assert first != second


async def test_of_two_at_once_one_gets_the_name(store: TokenStore) -> None:
    outcomes = await asyncio.gather(*(create(store) for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(outcome, str) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, InvalidInput) for outcome in outcomes) == 7


@pytest.mark.parametrize("name", ["", "a:b", "local"])
async def test_a_name_that_could_mislead_makes_no_token(store: TokenStore, name: str) -> None:
    with pytest.raises(InvalidInput, match="A token's name"):
        await create(store, name)
    assert await store.read_all() == ()


async def test_revoking_what_is_not_there_says_so(store: TokenStore) -> None:
    with pytest.raises(NotFound, match='no token "ward 3"'):
        await store.revoke("ward 3", now=NOW)
    await create(store)
    await store.revoke("ward 3", now=NOW)
    with pytest.raises(NotFound):
        await store.revoke("ward 3", now=NOW)


async def test_a_revoked_token_is_refused_by_every_process_within_two_seconds(
    store: TokenStore, database: AsyncDatabase[dict[str, Any]], tmp_path: Path
) -> None:
    secret = await create(store)
    no_file = tmp_path / "tokens.json"
    async with (
        open_authenticator(database, tokens_file=no_file) as one,
        open_authenticator(database, tokens_file=no_file) as other,
    ):
        others = tasks_of_ours()
        expected = Principal("ward 3", Role.VIEWER)
        for authenticator in (one, other):
            assert await authenticator.authenticate(f"Bearer {secret}") == expected
        await store.revoke("ward 3", now=NOW)
        for authenticator in (one, other):
            await eventually(partial(is_nobody, authenticator, secret))
        # Nothing runs in the background that could die.
        assert tasks_of_ours() <= others


def tasks_of_ours() -> set[asyncio.Task[Any]]:
    """Return the running tasks but those of PyMongo, which come and go with its connections."""
    return {
        task
        for task in asyncio.all_tasks() - {asyncio.current_task()}
        if "pymongo" not in repr(task.get_coro())
        and "pymongo" not in getattr(task.get_coro(), "cr_code", tasks_of_ours.__code__).co_filename
    }


async def is_nobody(authenticator: Authenticator, secret: str) -> bool:
    return await authenticator.authenticate(f"Bearer {secret}") is None


async def test_a_revoked_token_is_refused_also_while_mongodb_hangs(tmp_path: Path) -> None:
    """Without an answer of MongoDB no token is accepted on the strength of an older reading."""
    async with (
        run_mongod(tmp_path / "mongodb") as mongod,
        open_database(mongod.url, "hanging") as database,
    ):
        store = TokenStore(database)
        kept, revoked = await create(store, "kept"), await create(store, "revoked")
        async with open_authenticator(database, tokens_file=tmp_path / "none") as authenticator:
            assert not await is_nobody(authenticator, revoked)
            await store.revoke("revoked", now=NOW)
            revoked_at = asyncio.get_running_loop().time()
            os.kill(mongod.child.pid, signal.SIGSTOP)
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    accepted_at = await last_accepted(authenticator, revoked)
            finally:
                os.kill(mongod.child.pid, signal.SIGCONT)
            assert accepted_at - revoked_at < 2

            async def is_known(secret: str) -> bool:
                try:
                    return not await is_nobody(authenticator, secret)
                except DatabaseUnavailable:
                    return False

            await eventually(partial(is_known, kept))
            assert await is_nobody(authenticator, revoked)


async def last_accepted(authenticator: Authenticator, secret: str) -> float:
    """Use a token until MongoDB is missed.

    Returns:
        When the last accepted request began, by the clock of the event loop: what a busy machine
        adds to the answer does not count.
    """
    accepted_at = 0.0
    while True:
        asked_at = asyncio.get_running_loop().time()
        try:
            if not await is_nobody(authenticator, secret):
                accepted_at = asked_at
        except DatabaseUnavailable:
            return accepted_at
        await asyncio.sleep(0.05)


async def test_a_file_of_an_earlier_release_is_taken_over_once_and_that_is_said(
    database: AsyncDatabase[dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    path = tmp_path / "tokens.json"
    secrets = write_tokens_file(path, {"ann": Role.ADMIN, "bob": Role.VIEWER})
    content = path.read_bytes()
    async with open_authenticator(database, tokens_file=path) as authenticator:
        for name, role in (("ann", Role.ADMIN), ("bob", Role.VIEWER)):
            found = await authenticator.authenticate(f"Bearer {secrets[name]}")
            assert found == Principal(name, role)
    assert await asyncio.to_thread(os.listdir, tmp_path) == ["tokens.json.taken-over"]
    assert "2 of 2 tokens of the file" in caplog.text
    caplog.clear()
    # The file comes back from a backup: what was revoked since stays revoked.
    await TokenStore(database).revoke("bob", now=NOW)
    path.write_bytes(content)
    async with open_authenticator(database, tokens_file=path) as authenticator:
        assert await authenticator.authenticate(f"Bearer {secrets['bob']}") is None
    assert "0 of 2 tokens of the file" in caplog.text


async def test_a_file_that_can_not_be_renamed_is_taken_over_too(
    database: AsyncDatabase[dict[str, Any]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_path: Path, _target: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    path = tmp_path / "tokens.json"
    secret = write_tokens_file(path, {"ann": Role.ADMIN})["ann"]
    monkeypatch.setattr(Path, "replace", refuse)
    async with open_authenticator(database, tokens_file=path) as authenticator:
        assert await authenticator.authenticate(f"Bearer {secret}") is not None
    assert "it can't be renamed (Read-only file system): delete it" in caplog.text


async def test_a_broken_file_stops_the_start(
    database: AsyncDatabase[dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "tokens.json"
    for content, reason in ((b"{", "is broken"), (b"\xff", "can't be read")):
        path.write_bytes(content)
        with pytest.raises(TokensFileError, match=reason):
            async with open_authenticator(database, tokens_file=path):
                pass
        assert path.read_bytes() == content


async def test_without_tokens_the_server_is_open(
    database: AsyncDatabase[dict[str, Any]], tmp_path: Path
) -> None:
    async with open_authenticator(database, tokens_file=tmp_path / "none") as authenticator:
        assert await authenticator.authenticate(None) is LOCAL_ADMIN


async def test_the_command_line_makes_lists_and_revokes_tokens_of_a_running_server(
    settings: Settings, tmp_path: Path
) -> None:
    shell = Shell.on_stores_of(settings, tmp_path / "data")
    none = await shell.run("token", "list")
    assert (none.code, none.output, none.errors) == (0, "", "No tokens.\n")
    query = {"query": "{ studies { totalCount } }"}
    async with served(shell) as server, http_client(server.url) as http:
        assert "errors" not in (await http.post("/graphql", json=query)).json()
        made = await shell.run("token", "create", "--role", "viewer", "--name", "ward 3")
        assert (made.code, made.errors) == (0, "Keep it now: only its hash is stored.\n")
        headers = {"Authorization": f"Bearer {made.output.strip()}"}

        async def is_refused(headers: dict[str, str]) -> bool:
            answer = await http.post("/graphql", json=query, headers=headers)
            return answer.status_code == 401

        await eventually(partial(is_refused, {}))
        assert not await is_refused(headers)
        listed = await shell.run("token", "list")
        today = f"{datetime.now(UTC):%Y-%m-%d}"
        assert listed.output == f"ward 3\tviewer\tcreated {today}\tnever expires\n"
        revoked = await shell.run("token", "revoke", "ward 3")
        assert (revoked.code, revoked.errors) == (0, 'Revoked "ward 3".\n')
        await eventually(partial(is_refused, headers))
    again = await shell.run("token", "revoke", "ward 3")
    assert (again.code, again.errors) == (1, 'Error: There is no token "ward 3".\n')
    wrong = await shell.run("token", "create", "--role", "viewer", "--name", "a:b")
    assert wrong.code == 1
    assert wrong.errors.startswith("Error: A token's name has")


async def test_the_doctor_counts_tokens_in_a_process_of_its_own(
    settings: Settings, tmp_path: Path
) -> None:
    # In the process of the tests Beanie may have been initialized by something else.
    shell = Shell.on_stores_of(settings, tmp_path / "data")
    made = await shell.run("token", "create", "--role", "viewer", "--name", "worklist")
    assert made.code == 0, made.errors
    examined = await shell.run("doctor")
    assert (examined.code, examined.errors) == (0, "")
    assert "tokens: 1 valid" in examined.output


async def test_tokens_are_made_without_a_server_and_lost_ones_do_not_open_it(
    tmp_path: Path,
) -> None:
    data_dir = tmp_path / "data"
    shell = Shell({"DATA_DIR": str(data_dir), "LOAD_SAMPLES": "false"})
    arguments = ("token", "create", "--role", "admin", "--name", "ann", "--expires-in", "30")
    made = await shell.run(*arguments)
    assert made.code == 0, made.errors
    listed = await shell.run("token", "list")
    expires = f"{datetime.now(UTC) + timedelta(days=30):%Y-%m-%d}"
    assert listed.output.endswith(f"expires {expires}\n")
    lost = data_dir / "mongodb"
    lost.rename(tmp_path / "lost")
    started = await shell.run("serve", "--port", "0")
    assert started.code == 1
    assert "had credentials before and has lost them" in started.errors
    assert "orthanc-graphql token create" in started.errors


@pytest.mark.parametrize(
    ("setting", "value"),
    [("PUBLIC_URL", "https://pacs.example.org"), ("TRUSTED_PROXIES", "127.0.0.1")],
)
async def test_a_server_that_others_can_reach_does_not_start_open(
    settings: Settings, tmp_path: Path, setting: str, value: str
) -> None:
    shell = Shell.on_stores_of(settings, tmp_path / "data")
    shell.environment[setting] = value
    started = await shell.run("serve", "--port", "0")
    assert started.code == 1
    assert started.errors.count("\n") == 1
    assert "Refused to start without credentials" in started.errors
    assert setting in started.errors


async def test_a_mongodb_that_is_away_is_one_clear_line(settings: Settings, tmp_path: Path) -> None:
    shell = Shell.on_stores_of(settings, tmp_path / "data")
    shell.environment["MONGODB_URL"] = "mongodb://127.0.0.1:9/"
    listed = await shell.run("token", "list")
    assert (listed.code, listed.output) == (1, "")
    assert listed.errors == "Error: The database does not answer. Try again in a few seconds.\n"
