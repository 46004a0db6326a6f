from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from graph.cli import main
from services.auth.tokens import digest_of, read_tokens


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("MONGODB_URL", "ORTHANC_URL", "TOKENS_FILE", "DATA_DIR"):
        monkeypatch.delenv(name, raising=False)


def token(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["token", *arguments])


def create(name: str = "ward 3", *more: str) -> Result:
    return token("create", "--role", "viewer", "--name", name, *more)


def test_a_token_is_shown_once_and_kept_as_its_hash() -> None:
    result = create()
    assert result.exit_code == 0
    secret = result.stdout.strip()
    (entry,) = read_tokens(Path(".data/tokens.json"))
    assert entry.sha256 == digest_of(secret)
    assert secret not in token("list").output


def test_the_list_tells_name_role_and_expiry() -> None:
    create("ward 3", "--expires-in", "30")
    create("ward 4")
    (entry, _) = read_tokens(Path(".data/tokens.json"))
    assert entry.expires is not None
    created = f"created {entry.created:%Y-%m-%d}"
    assert token("list").stdout.splitlines() == [
        f"ward 3\tviewer\t{created}\texpires {entry.expires:%Y-%m-%d}",
        f"ward 4\tviewer\t{created}\tnever expires",
    ]


def test_a_revoked_token_is_gone() -> None:
    create()
    assert token("revoke", "ward 3").exit_code == 0
    assert read_tokens(Path(".data/tokens.json")) == ()


def test_the_file_that_a_setting_names_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENS_FILE", "elsewhere/t.json")
    create()
    assert len(read_tokens(Path("elsewhere/t.json"))) == 1


def test_where_no_token_was_made_none_is_listed() -> None:
    result = token("list")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "No tokens.\n")
    create()
    token("revoke", "ward 3")
    assert token("list").stderr == "No tokens.\n"


def test_a_file_that_a_setting_names_and_is_missing_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOKENS_FILE", "elsewhere/t.json")
    result = token("list")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "t.json does not exist" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["revoke", "x"], 'There is no token "x".'),
        (["create", "--role", "viewer", "--name", "a:b"], "A token's name has"),
    ],
)
def test_what_can_not_be_done_is_one_clear_line(arguments: list[str], message: str) -> None:
    result = token(*arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr
