"""What the services log while a command runs goes to stderr, in lines that quote nobody."""

import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module

import pytest
from click.testing import CliRunner

from graph.cli import main
from graph.commands import doctor
from services.doctor.findings import Finding, ok
from services.errors import DatabaseUnavailable
from services.settings import Settings

CANARY = "Zyxwvut^Canary"


def log() -> None:
    """Log as a service does that could not do something."""
    logger = logging.getLogger("services.test")
    try:
        float(CANARY)
    except ValueError as exc:
        logger.warning("it is tried again", exc_info=exc)
    logger.info("it goes on")
    logging.getLogger("pymongo.command").warning("it broke off")


def assert_told(errors: str) -> None:
    lines = errors.splitlines()
    assert re.fullmatch(r"\S+ \S+ WARNING services\.test \[-\] it is tried again", lines[0])
    assert "WARNING pymongo.command [-] it broke off" in errors
    assert "it goes on" not in errors
    assert "ValueError" in errors
    assert CANARY not in errors


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("import_", ["import", "/"]),
        ("migrate", ["migrate", "--source", "mongodb://old/dicom"]),
        ("sync", ["sync"]),
    ],
)
def test_commands_tell_warnings(
    module: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def open_runtime(_: Settings) -> AsyncIterator[None]:
        log()
        raise DatabaseUnavailable
        yield

    monkeypatch.setattr(import_module(f"graph.commands.{module}"), "open_runtime", open_runtime)
    ended = CliRunner().invoke(main, arguments)
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert_told(ended.stderr)
    assert ended.stderr.endswith(f"Error: {DatabaseUnavailable.default_message}\n")


def test_the_report_of_doctor_stays_clear_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async def examine(_settings: Settings) -> AsyncIterator[Finding]:
        log()
        yield ok("Python", "3.11.7")

    monkeypatch.setattr(doctor, "examine", examine)
    ended = CliRunner().invoke(main, ["doctor"])
    assert (ended.exit_code, ended.stdout) == (0, "ok       Python             3.11.7\n")
    assert_told(ended.stderr)
