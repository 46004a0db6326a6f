"""README.md and the other pages describe the software as it is."""

import importlib.util
import re
from pathlib import Path

import click
import pytest

from graph.cli import main
from tests.documentation import PAGES, ROOT, settings_table, written_settings_table


def relative_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(params=PAGES, ids=relative_name)
def page(request: pytest.FixtureRequest) -> Path:
    path = request.param
    assert isinstance(path, Path)
    return path


def test_the_page_of_settings_lists_every_setting_as_it_is() -> None:
    assert written_settings_table() == settings_table()


def test_a_page_names_only_commands_that_exist(page: Path) -> None:
    named = set(re.findall(r"orthanc-graphql ([a-z]+)\b", page.read_text(encoding="utf-8")))
    # "orthanc-graphql contract" and the like would be prose: pages quote commands as code.
    assert named <= set(main.list_commands(click.Context(main))), named


def test_a_page_links_only_to_files_and_headings_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?://|mailto:)([^)\s]+)\)", text):
        path, _, heading = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        if heading:
            assert heading in anchors(linked), target


def test_a_page_names_only_source_files_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    paths = re.findall(r"`((?:graph|services|models|tests|docs)/[\w./-]+)`", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_architecture_names_only_modules_that_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    modules = set(re.findall(r"`((?:graph|services|models)(?:\.\w+)+)`", text))
    assert len(modules) > 30
    assert [name for name in sorted(modules) if not importlib.util.find_spec(name)] == []


def test_the_architecture_describes_every_package() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    described = set(re.findall(r"^\| `([\w/]+)/` \|", text, re.MULTILINE))
    packages = {
        str(path.parent.relative_to(ROOT))
        for root in ("graph", "models", "services")
        for path in (ROOT / root).rglob("__init__.py")
        if "node_modules" not in path.parts
    }
    assert described == packages


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
