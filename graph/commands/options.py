"""Parts of all commands: options, settings, and errors as one clear line."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from services.errors import Error
from services.settings import Settings

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the embedded stores and generated keys.  [default: DATA_DIR or .data]",
)


STORES = (
    "DATA_DIR",
    "MONGODB_URL",
    "MONGODB_DATABASE",
    "ORTHANC_URL",
    "ORTHANC_USERNAME",
    "ORTHANC_PASSWORD",
    "FRAME_URL_KEYS",
)
"""Settings of the commands that open MongoDB and Orthanc."""


def examples(*lines: str, settings: Sequence[str] = ()) -> str:
    """Return the end of a command's help.

    Args:
        lines: Example command lines.
        settings: Names of the most important settings.
    """
    # click does not wrap a paragraph that begins with a backspace.
    shown = "\b\n" + "\n".join(["Examples:", *(f"  {line}" for line in lines)])
    if not settings:
        return shown
    names = ", ".join(settings)
    return f"{shown}\n\nSettings (environment or .env; docs/settings.md has all): {names}."


def load_settings(**overrides: object) -> Settings:
    """Read the settings; given options have precedence over the environment.

    Args:
        overrides: Values by setting name; None means that the option was not given.

    Raises:
        click.ClickException: A setting is wrong; the message names it.
    """
    try:
        return Settings(
            # As Docker and Kubernetes give secrets: a file for each setting.
            _secrets_dir=os.environ.get("SECRETS_DIR") or None,
            **{name: value for name, value in overrides.items() if value is not None},  # type: ignore[arg-type]  # pydantic checks them
        )
    except ValidationError as exc:
        raise click.ClickException(_explain(exc)) from exc


def run(main: Callable[[], Coroutine[Any, Any, int | None]]) -> None:
    """Run a command's coroutine; an expected error is one line, not a traceback.

    SIGTERM ends it as Ctrl-C does, so that everything is closed.

    Args:
        main: Makes the coroutine, which returns the exit code; None for 0.
    """
    try:
        with asyncio.Runner(loop_factory=_new_event_loop) as runner:
            code = runner.run(_terminable(main))
    except Error as exc:
        raise click.ClickException(exc.message) from exc
    except OSError as exc:
        if exc.filename is None:
            raise
        # As of a data directory that is read-only or belongs to another user.
        raise click.ClickException(
            f"{exc.filename}: {exc.strerror}. Check its owner, its mode and the disk, or choose "
            "another folder with DATA_DIR."
        ) from exc
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    except asyncio.CancelledError:
        raise SystemExit(128 + signal.SIGTERM) from None
    raise SystemExit(code or 0)


async def _terminable(main: Callable[[], Coroutine[Any, Any, int | None]]) -> int | None:
    task = asyncio.current_task()
    if task is not None and sys.platform != "win32":
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await main()


def _new_event_loop() -> asyncio.AbstractEventLoop:
    """Prefer uvloop, which moves bytes twice as fast; it does not exist on Windows."""
    try:
        import uvloop  # noqa: PLC0415  # only where it can be installed
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _explain(error: ValidationError) -> str:
    lines = []
    for fault in error.errors(include_url=False, include_input=False):
        setting = ".".join(str(part) for part in fault["loc"]).upper()
        message = fault["msg"].removeprefix("Value error, ")
        lines.append(f"{setting}: {message}" if setting else message)
    return "\n".join(lines)
