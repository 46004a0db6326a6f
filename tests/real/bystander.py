"""A second user who works on while somebody attacks the server, in a process of its own."""

import asyncio
import itertools
import json
import sys
import threading
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import httpx
from pydicom import dcmread

from services.auth.roles import Role
from services.settings import Settings
from tests.patience import PATIENCE_SECONDS
from tests.real.sync_stage import instance_bytes
from tests.server_process import Served, serve
from tests.tokens import write_tokens_file

ALLOWED_SECONDS = {"health": 0.3, "query": 1.0, "frame": 1.0, "upload": 1.0}
"""What a second user may have to wait, whatever others do."""

_STUDY = 999
"""Of the second user's own files: those of an attacker may have no pictures."""

_FRAME = """query ($uid: String!) { study(studyInstanceUID: $uid) {
  series { instances(first: 1) { frame { url } } } } }"""


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
        return httpx.AsyncClient(
            base_url=self.server.url, headers=headers, timeout=120, limits=limits, trust_env=False
        )


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

    @asynccontextmanager
    async def working(self) -> AsyncIterator[Waited]:
        """Ask for health, a list, a frame and an upload, again and again, while inside."""
        waited = Waited()
        assert await self._told("begin") == "working"
        yield waited
        waited.worst, waited.slowness, waited.frozen = json.loads(await self._told("end"))

    async def _told(self, word: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{word}\n".encode())
        async with asyncio.timeout(PATIENCE_SECONDS):
            return (await self._process.stdout.readline()).decode().strip()


@asynccontextmanager
async def second_user(guarded: Guarded) -> AsyncIterator[SecondUser]:
    """Start somebody who works beside an attack.

    The user is a process of its own: whatever the attackers do in this one does not count.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.real.bystander", guarded.server.url, guarded.uploader),
        stdin=PIPE,
        stdout=PIPE,
    )
    try:
        yield SecondUser(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def working_beside(guarded: Guarded) -> AsyncIterator[Waited]:
    """Let a second user work while inside."""
    async with second_user(guarded) as user, user.working() as waited:
        yield waited


class _User:
    """What the process does."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._numbers = itertools.count(1)
        self._frame_url = ""

    async def prepare(self) -> None:
        await self.upload()
        content = dcmread(BytesIO(instance_bytes(_STUDY, 1, 1)), specific_tags=["StudyInstanceUID"])
        data = (await self.ask(_FRAME, uid=str(content.StudyInstanceUID))).json()["data"]
        self._frame_url = data["study"]["series"][0]["instances"][0]["frame"]["url"]

    async def upload(self) -> httpx.Response:
        content = instance_bytes(_STUDY, 1, next(self._numbers))
        return await self._http.post("/api/dicom/upload", files={"file": ("a.dcm", content)})

    async def ask(self, query: str, **variables: str) -> httpx.Response:
        body = {"query": query, "variables": variables}
        response = await self._http.post("/graphql", json=body)
        assert "errors" not in response.json(), response.text
        return response

    async def work_until(self, is_over: asyncio.Event) -> list[tuple[str, float, float]]:
        """Do everything at least three times; answers what was asked from when to when."""
        kinds: dict[str, Callable[[], Awaitable[httpx.Response]]] = {
            "health": lambda: self._http.get("/healthz"),
            "query": lambda: self.ask("{ studies(first: 5) { totalCount nodes { id } } }"),
            "frame": lambda: self._http.get(self._frame_url),
            "upload": self.upload,
        }
        waits: list[tuple[str, float, float]] = []

        async def repeat(name: str) -> None:
            count = 0
            while not is_over.is_set() or count < 3:
                count += 1
                begun = time.perf_counter()
                response = await kinds[name]()
                waits.append((name, begun, time.perf_counter()))
                assert response.status_code == 200, (name, response.status_code, response.text)
                await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as users:
            for name in kinds:
                users.create_task(repeat(name))
        return waits


async def _be_second_user(url: str, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(
        base_url=url, headers=headers, timeout=60, trust_env=False
    ) as http:
        user = _User(http)
        await user.prepare()
        while await _read_word():
            _say("working")
            _say(json.dumps(await _worked(user)))


async def _worked(user: _User) -> tuple[dict[str, float], float, float]:
    """Work until the next word; answers the parts of `Waited`."""
    machine = _Machine()
    machine.start()
    is_over = asyncio.Event()
    reading = asyncio.create_task(_read_word())
    reading.add_done_callback(lambda _: is_over.set())
    waits = await user.work_until(is_over)
    slowness = machine.stop()
    worst: dict[str, float] = {}
    for name, begun, end in waits:
        seconds = end - begun - machine.frozen(begun, end)
        worst[name] = max(worst.get(name, 0.0), round(seconds, 3))
    return worst, slowness, machine.frozen(float("-inf"), float("inf"))


async def _read_word() -> str:
    return await asyncio.to_thread(sys.stdin.readline)


def _say(answer: str) -> None:
    print(answer, flush=True)  # noqa: T201  # its answer


class _Machine(threading.Thread):
    """Computes for 2 ms again and again, and sees how long that takes.

    A thread of the user's process: what the server does wrong does not reach it, and what keeps
    the processors from everybody does.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._freezes: list[tuple[float, float]] = []
        self._is_over = threading.Event()
        self._passed = self._computed = 0.0

    def run(self) -> None:
        """Measure until `stop`."""
        while not (self._is_over.is_set() and self._computed):
            begun, begun_computing = time.perf_counter(), time.thread_time()
            while time.thread_time() - begun_computing < _COMPUTING_SECONDS:
                pass
            computed_until = time.perf_counter()
            self._passed += computed_until - begun
            self._computed += time.thread_time() - begun_computing
            time.sleep(_PAUSE_SECONDS)
            end = time.perf_counter()
            if end - begun > _FREEZE_SECONDS:
                self._freezes.append((begun, end))

    def frozen(self, begun: float, end: float) -> float:
        """Return how long the machine was frozen between two moments."""
        return sum(max(0, min(end, until) - max(begun, since)) for since, until in self._freezes)

    def stop(self) -> float:
        """End the measurement; answers the slowness."""
        self._is_over.set()
        self.join()
        return max(1.0, self._passed / self._computed)


_COMPUTING_SECONDS = 0.002
_PAUSE_SECONDS = 0.02

_FREEZE_SECONDS = 0.3
"""The processors were somebody else's for so long: a request that waited then says nothing."""


async def resident_bytes(guarded: Guarded) -> int:
    """Return the memory that the server's process holds now."""
    pid = guarded.server.process_id
    status = await asyncio.to_thread(Path(f"/proc/{pid}/status").read_text)
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    asyncio.run(_be_second_user(*sys.argv[1:]))
