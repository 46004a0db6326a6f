"""What the process of the second user does, see `tests.real.bystander`."""

import asyncio
import itertools
import json
import sys
import threading
import time
from io import BytesIO
from typing import TYPE_CHECKING

import httpx
from pydicom import dcmread

from tests.clients import http_client
from tests.instances import instance_bytes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_STUDY = 999
"""Of the second user's own files: those of an attacker may have no pictures."""

_FRAME = """query ($uid: String!) { study(studyInstanceUID: $uid) {
  series { instances(first: 1) { frame { url } } } } }"""


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
    async with http_client(url, headers=headers) as http:
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


if __name__ == "__main__":
    asyncio.run(_be_second_user(*sys.argv[1:]))
