"""The command line as processes, on the stores of the tests or on their own."""

import asyncio
import os
import re
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from services.settings import Settings
from tests.patience import PATIENCE_SECONDS


@dataclass(frozen=True, slots=True)
class Ended:
    """What a process left."""

    code: int | None
    output: str
    errors: str


@dataclass(frozen=True, slots=True)
class Shell:
    """Starts the command line with an environment."""

    environment: dict[str, str]

    @classmethod
    def on_stores_of(cls, settings: Settings, data_dir: Path) -> "Shell":
        """Use given stores, with a data directory where no server runs."""
        assert settings.mongodb_url is not None
        assert settings.frame_url_keys is not None
        return cls(
            {
                "DATA_DIR": str(data_dir),
                "MONGODB_URL": settings.mongodb_url.get_secret_value(),
                "MONGODB_DATABASE": settings.mongodb_database,
                "ORTHANC_URL": settings.orthanc_url or "",
                "ORTHANC_USERNAME": settings.orthanc_username,
                "ORTHANC_PASSWORD": settings.orthanc_password.get_secret_value(),
                "FRAME_URL_KEYS": settings.frame_url_keys.get_secret_value(),
            }
        )

    async def start(self, *arguments: str) -> Process:
        """Start a command."""
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "graph.cli", *arguments,
            env=os.environ | self.environment, stdout=PIPE, stderr=PIPE,
        )  # fmt: skip

    async def run(self, *arguments: str) -> Ended:
        """Run a command to its end."""
        return await ended(await self.start(*arguments))


@dataclass(frozen=True, slots=True)
class Served:
    """A server that answers."""

    process: Process
    url: str


async def ended(process: Process) -> Ended:
    """Wait for the end of a process."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        raise
    return Ended(process.returncode, output.decode(), errors.decode())


@asynccontextmanager
async def served(shell: Shell, *arguments: str) -> AsyncIterator[Served]:
    """Run a server; it may be killed meanwhile."""
    process = await shell.start("serve", "--port", "0", *arguments)
    assert process.stdout is not None
    output = ""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while "Ctrl-C" not in output:
                line = await process.stdout.readline()
                assert line, output
                output += line.decode()
        found = re.search(r"http://127\.0\.0\.1:\d+", output)
        assert found is not None
        yield Served(process, found[0])
    finally:
        if process.returncode is None:
            process.terminate()
        await ended(process)
