import re
from pathlib import Path

import click
from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from graph.cli import main
from services.settings import Settings

README = Path(__file__).parent.parent / "README.md"


def settings_table() -> str:
    """Make the table of all settings: README.md holds exactly this."""
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        rows.append(f"| `{name.upper()}` | {_spelled(field.default)} | {field.description} |")
    return "\n".join(rows)


def _spelled(default: object) -> str:
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if default is None or default in ("", [], PydanticUndefined):
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default}`".replace("'", '"')


def test_the_readme_lists_every_setting_as_it_is() -> None:
    text = README.read_text(encoding="utf-8")
    found = re.search(r"<!-- settings -->\n(.*?)\n<!-- /settings -->", text, re.DOTALL)
    assert found is not None
    assert found[1] == settings_table()


def test_the_readme_names_only_commands_that_exist() -> None:

    text = README.read_text(encoding="utf-8")
    named = set(re.findall(r"orthanc-graphql ([a-z]+)\b", text))
    assert named <= set(main.list_commands(click.Context(main))), named
