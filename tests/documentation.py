"""The pages of the documentation, and the parts of them that are generated.

`make docs` writes the generated parts.
"""

import re
from pathlib import Path

from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from services.settings import Settings

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "tests" / "benchmarks" / "README.md",
]
SETTINGS_PAGE = ROOT / "docs" / "settings.md"

_SETTINGS = re.compile(r"(?<=<!-- settings -->\n).*?(?=\n<!-- /settings -->)", re.DOTALL)


def settings_table() -> str:
    """Return the table of all settings as Markdown."""
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        rows.append(f"| `{name.upper()}` | {_default_cell(field.default)} | {field.description} |")
    return "\n".join(rows)


def written_settings_table() -> str:
    """Return the table that the page of the settings contains."""
    found = _SETTINGS.search(SETTINGS_PAGE.read_text(encoding="utf-8"))
    assert found is not None
    return found[0]


def write_settings_table() -> None:
    """Replace the table in the page of the settings."""
    text = SETTINGS_PAGE.read_text(encoding="utf-8")
    SETTINGS_PAGE.write_text(_SETTINGS.sub(lambda _: settings_table(), text), encoding="utf-8")


def _default_cell(default: object) -> str:
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if default is None or default in ("", [], PydanticUndefined):
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default}`".replace("'", '"')


if __name__ == "__main__":
    write_settings_table()
