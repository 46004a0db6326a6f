"""A second user who works on while somebody attacks the server, in a process of its own."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from services.auth.roles import Role
from services.settings import Settings
from tests.clients import http_client
from tests.patience import PATIENCE_SECONDS
from tests.real.sync_stage import eventually
from tests.server_process import Served, serve
from tests.tokens import write_tokens_file

ALLOWED_SECONDS = {"health": 0.3, "query": 1.0, "frame": 1.0, "upload": 1.0}
"""What a second user may have to wait, whatever others do."""

_ATTEMPTS = 3
"""Whoever is starved by the server waits at each attack; other processes of the machine keep a user
waiting now and then."""

_MIB = 1024 * 1024

Attack = Callable[[int], Awaitable[None]]
"""Attacks the server once; called with the number of the attempt, so that its files can be new."""


@dataclass(frozen=True, slots=True)
class Guarded:
    """A server that asks for tokens.

    Attributes:
        uploader: A token that may query and upload.
        attacker: Another one.
    """

    server: Served
    uploader: str
    attacker: str
    log: Path

    def client(self, token: str | None) -> httpx.AsyncClient:
        """Make a client of its own connections, with a token or without."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        limits = httpx.Limits(max_connections=None)
        patience = 4 * PATIENCE_SECONDS
        return http_client(self.server.url, headers=headers, timeout=patience, limits=limits)


@asynccontextmanager
async def serve_with_tokens(settings: Settings, **more: str) -> AsyncIterator[Guarded]:
    """Run a server on the stores of the tests; `more` are further settings."""
    assert settings.mongodb_url is not None
    assert settings.frame_url_keys is not None
    roles = {"uploader": Role.UPLOADER, "attacker": Role.ADMIN}
    tokens = write_tokens_file(settings.data_dir / "tokens.json", roles)
    environment = {
        "MONGODB_URL": settings.mongodb_url.get_secret_value(),
        "MONGODB_DATABASE": settings.mongodb_database,
        "ORTHANC_URL": settings.orthanc_url or "",
        "ORTHANC_USERNAME": settings.orthanc_username,
        "ORTHANC_PASSWORD": settings.orthanc_password.get_secret_value(),
        "FRAME_URL_KEYS": settings.frame_url_keys.get_secret_value(),
        "OPERATION_SECONDS": str(settings.operation_seconds),
        **more,
    }
    async with serve(settings.data_dir, environment) as server:
        yield Guarded(
            server, tokens["uploader"], tokens["attacker"], settings.data_dir / "serve.log"
        )


@dataclass(slots=True)
class Waited:
    """How long the second user waited, in seconds, by what they did.

    Attributes:
        worst: The longest time of each kind, without the freezes of the machine meanwhile.
        slowness: Seconds that pass in one second of computing: above 1 where others keep the
            processors busy.
        frozen: How long the machine did not let the user compute at all, altogether.
    """

    worst: dict[str, float] = field(default_factory=dict)
    slowness: float = 1.0
    frozen: float = 0.0

    @property
    def too_long(self) -> dict[str, float]:
        """What took longer than allowed on a machine that does nothing else."""
        return {
            name: seconds
            for name, seconds in self.worst.items()
            if seconds > ALLOWED_SECONDS[name] * self.slowness
        }


@dataclass(frozen=True, slots=True)
class SecondUser:
    """A process that uses the server; make one with `second_user`."""

    _process: Process

    async def waits_beside(self, attack: Attack) -> list[Waited]:
        """Work beside an attack, again when that took too long.

        Returns:
            Each attempt, if all of them took too long; else nothing.
        """
        waits = []
        for attempt in range(_ATTEMPTS):
            async with self._working() as waited:
                await attack(attempt)
            if not waited.too_long:
                return []
            waits.append(waited)
        return waits

    @asynccontextmanager
    async def _working(self) -> AsyncIterator[Waited]:
        """Ask for health, a list, a frame and an upload, again and again, while inside."""
        waited = Waited()
        assert await self._told("begin") == "working"
        yield waited
        waited.worst, waited.slowness, waited.frozen = json.loads(await self._told("end"))

    async def _told(self, word: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{word}\n".encode())
        async with asyncio.timeout(2 * PATIENCE_SECONDS):
            return (await self._process.stdout.readline()).decode().strip()


@asynccontextmanager
async def second_user(guarded: Guarded) -> AsyncIterator[SecondUser]:
    """Start somebody who works beside an attack.

    The user is a process of its own: whatever the attackers do in this one does not count.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.real.second_user", guarded.server.url, guarded.uploader),
        stdin=PIPE,
        stdout=PIPE,
    )
    try:
        yield SecondUser(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def nobody_waits(guarded: Guarded, attack: Attack, *, most_mebibytes: int) -> None:
    """Let a second user work beside an attack; in the end the server's memory is free again.

    Args:
        guarded: The server.
        attack: Attacks it.
        most_mebibytes: What the server may hold more than before.
    """
    before = await resident_bytes(guarded)
    async with second_user(guarded) as user:
        waits = await user.waits_beside(attack)

    async def is_free() -> bool:
        return (await resident_bytes(guarded) - before) // _MIB < most_mebibytes

    # The server gives memory back when it has been idle for a moment.
    await eventually(is_free)
    assert not waits, waits


async def resident_bytes(guarded: Guarded) -> int:
    """Return the memory that the server's process holds now."""
    pid = guarded.server.process_id
    status = await asyncio.to_thread(Path(f"/proc/{pid}/status").read_text)
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024
