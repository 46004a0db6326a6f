"""The help of every command: an example that works, and settings that exist."""

import re
import shlex
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from graph.cli import main
from services.settings import Settings

SETTINGS = {name.upper() for name in Settings.model_fields}
WITHOUT_SETTINGS = {"schema", "health", "secrets"}


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        yield (*path, name)
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


COMMANDS = list(commands(main))


def help_of(path: tuple[str, ...]) -> str:
    shown = CliRunner().invoke(main, [*path, "--help"])
    assert shown.exit_code == 0
    return shown.output


def examples_in(text: str) -> list[str]:
    _, _, rest = text.partition("Examples:\n")
    return [line.strip() for line in rest.partition("\n\n")[0].splitlines()]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_help_has_examples_whose_options_exist(path: tuple[str, ...]) -> None:
    text = help_of(path)
    examples = examples_in(text)
    assert examples
    for example in examples:
        assert "orthanc-graphql " + " ".join(path) in example
        words = shlex.split(example.partition(" > ")[0])
        options = [word for word in words if word.startswith("--")]
        subcommand = (*path, *(word for word in words[2:3] if path == ("token",)))
        assert all(option in help_of(subcommand) for option in options), example


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_settings_that_a_help_names_exist(path: tuple[str, ...]) -> None:
    named = set(re.findall(r"[A-Z]+(?:_[A-Z]+)+", help_of(path)))
    assert named <= SETTINGS
    assert bool(named) is (path[0] not in WITHOUT_SETTINGS)


def test_the_schema_is_printed_as_it_is_kept() -> None:
    printed = CliRunner().invoke(main, ["schema"]).output
    assert printed.endswith("}\n")
    assert not printed.endswith("\n\n")
