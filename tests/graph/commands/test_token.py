"""What the command says where it can't do its work; tests/real/test_tokens.py has the rest."""

import pytest
from click.testing import CliRunner, Result

from graph.cli import main


def token(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["token", *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create", "--role", "root", "--name", "a"], "'root' is not one of"),
        (["create", "--role", "viewer"], "Missing option '--name'"),
        (["create", "--role", "viewer", "--name", "a", "--expires-in", "0"], "not in the range"),
        (["revoke"], "Missing argument 'NAME'"),
    ],
)
def test_what_makes_no_sense_is_refused_before_a_store_is_opened(
    arguments: list[str], message: str
) -> None:
    result = token(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
