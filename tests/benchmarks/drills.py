"""`python -m tests.benchmarks.drills [DRILL...]`: what fails while processes and stores are lost.

Each drill runs for seconds and prints one line. Nothing but this machine is needed.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import ssl
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from pymongo import AsyncMongoClient

from services.embedded.child import Child, ChildSpec, supervise
from services.embedded.mongod import find_mongod, run_mongod
from services.embedded.orthanc import run_orthanc
from services.embedded.ports import find_free_port
from services.frames.signing import generate_key
from tests.benchmarks.lean_client import open_lean_client
from tests.benchmarks.stage import Server, open_server
from tests.benchmarks.studies import ct_files
from tests.benchmarks.synthetic_index import IndexSize, fill, study_uid
from tests.benchmarks.tree_query import TREE
from tests.deployment import haproxy_configuration, make_certificate, nginx_configuration

_LIST = {"query": "{ studies(first: 50) { nodes { studyInstanceUID patient { patientName } } } }"}
_CLIENTS = 8
_DATABASE = "drill"
_PATH = "/usr/sbin:/usr/bin:/usr/local/bin"


async def two_workers() -> str:
    """Trees a second of two workers beside those of one, both with 8 clients; CPU of each."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    costs: dict[int, list[float]] = {1: [], 2: []}
    size = IndexSize(studies=8, series=4, instances=500)
    async with _index(size) as environment:
        for workers in (1, 2, 1, 2):
            async with _server(workers, **environment) as server:
                rate, cost = await _trees_per_second(server)
                rates[workers].append(rate)
                costs[workers].append(cost)
    one, two = (max(found) for found in rates.values())
    cost, cost_of_two = (min(found) for found in costs.values())
    return (
        f"{one:.1f} trees/s with one process, {two:.1f} with two workers: {two / one:.2f}x; "
        f"{cost:.0f} and {cost_of_two:.0f} ms of CPU a tree"
    )


async def rolling_restart() -> str:
    """Failures of 1,000 requests while all workers are replaced, again and again."""
    async with _index(IndexSize(studies=200)) as environment, _server(2, **environment) as server:
        return await _under_load(server.url, _restarting(server.pid), requests=1000, retries=0)


async def behind_proxies() -> str:
    """Failures of 600 requests while two processes behind each proxy are restarted in turn."""
    found = []
    async with _index(IndexSize(studies=200)) as environment:
        for name in ("nginx", "haproxy", "haproxy without retries"):
            if shutil.which(name.split()[0], path=_PATH) is not None:
                async with _proxied(name, environment) as (url, restart, trust):
                    outcome = await _under_load(
                        url, restart, requests=600, retries=0, pause=0.4, trust=trust
                    )
                    found.append(f"{name}: {outcome}")
    return "; ".join(found)


async def worker_killed() -> str:
    """Failures of 400 requests while a worker is killed; clients repeat a query once."""
    async with _index(IndexSize(studies=200)) as environment, _server(2, **environment) as server:
        return await _under_load(
            server.url, _killing(server.pid), requests=400, retries=1, pause=0.2
        )


async def primary_killed() -> str:
    """Failures of 400 requests, every fourth an upload, while the primary of MongoDB is killed."""
    async with _set_of_three() as (url, members), AsyncExitStack() as stack:
        folder = Path(await asyncio.to_thread(stack.enter_context, _folder()))
        orthanc = await stack.enter_async_context(run_orthanc(folder / "orthanc"))
        environment = {
            "MONGODB_URL": url,
            "MONGODB_DATABASE": _DATABASE,
            "ORTHANC_URL": orthanc.url,
            "ORTHANC_USERNAME": orthanc.username,
            "ORTHANC_PASSWORD": orthanc.password,
            "FRAME_URL_KEYS": generate_key(),
        }
        server = await stack.enter_async_context(open_server(folder / "data", **environment))

        async def kill() -> None:
            await asyncio.sleep(1)
            async with AsyncMongoClient[dict[str, Any]](url) as client:
                _, port = await client.primary or ("", 0)
            os.kill(members[port].pid, signal.SIGKILL)

        files = list(ct_files(100, size=16))
        return await _under_load(server.url, kill, requests=400, retries=0, files=files, pause=0.05)


_DRILLS = (two_workers, rolling_restart, behind_proxies, worker_killed, primary_killed)


async def _trees_per_second(server: Server) -> tuple[float, float]:
    """Return the rate, and the milliseconds of CPU that the server takes for each."""
    done, seconds = 0, 6.0
    async with open_lean_client(server.url, {}, connections=_CLIENTS) as client:

        async def ask(number: int) -> None:
            nonlocal done
            body = {"query": TREE, "variables": {"uid": study_uid(number)}}
            while time.monotonic() < end:
                await client.post("/graphql", json.dumps(body).encode())
                done += 1

        end = time.monotonic() + 2
        await asyncio.gather(*map(ask, range(_CLIENTS)))
        done, end = 0, time.monotonic() + seconds
        cpu_before = await asyncio.to_thread(_cpu_seconds, server.pid)
        await asyncio.gather(*map(ask, range(_CLIENTS)))
        cpu = await asyncio.to_thread(_cpu_seconds, server.pid) - cpu_before
    return done / seconds, cpu * 1000 / done


async def _under_load(
    url: str,
    disturb: Callable[[], Awaitable[None]],
    *,
    requests: int,
    retries: int,
    files: list[bytes] | None = None,
    pause: float = 0.01,
    trust: ssl.SSLContext | bool = True,
) -> str:
    """Send requests from 16 clients, half of them over new connections, and count the outcomes."""
    left = list(range(requests))
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    limits = httpx.Limits(max_connections=64)
    async with httpx.AsyncClient(
        base_url=url, timeout=60, trust_env=False, limits=limits, verify=trust
    ) as kept:

        async def once(number: int) -> str:
            if files and number % 4 == 0:
                content = files[number // 4]
                stored = await kept.put("/api/dicom/instances", content=content)
                return "ok" if stored.is_success else str(stored.json().get("code"))
            headers = {"Connection": "close"} if number % 2 else {}
            answer = await kept.post("/graphql", json=_LIST, headers=headers)
            if "json" not in answer.headers.get("content-type", ""):
                return f"HTTP {answer.status_code}"  # of the proxy
            body = answer.json()
            if answer.is_success and "errors" not in body:
                return "ok"
            return str(body.get("errors", body))[:80]

        async def client() -> None:
            nonlocal slowest
            while left:
                number = left.pop()
                began = time.monotonic()
                for attempt in range(retries + 1):
                    try:
                        outcome = await once(number)
                    except httpx.TransportError as exc:
                        outcome = type(exc).__name__
                    if outcome == "ok" or attempt == retries:
                        outcomes[outcome] += 1
                        break
                slowest = max(slowest, time.monotonic() - began)
                await asyncio.sleep(pause)

        disturbing = asyncio.ensure_future(disturb())
        await asyncio.gather(*(client() for _ in range(16)))
        disturbing.cancel()
        await asyncio.gather(disturbing, return_exceptions=True)
    failed = requests - outcomes.pop("ok", 0)
    return f"{failed} of {requests} failed {dict(outcomes) or ''}, slowest {slowest:.1f} s"


@asynccontextmanager
async def _proxied(
    name: str, environment: Mapping[str, str]
) -> AsyncIterator[tuple[str, Callable[[], Awaitable[None]], ssl.SSLContext]]:
    """Run two processes behind a proxy of `deploy/`; yields its URL, what restarts them, and its
    certificate."""
    executable = str(shutil.which(name.split(maxsplit=1)[0], path=_PATH))
    ports = (find_free_port(), find_free_port())
    async with AsyncExitStack() as stack:
        folder = Path(await asyncio.to_thread(stack.enter_context, _folder()))
        processes = [await _start(folder / str(port), port, environment) for port in ports]
        port = find_free_port()
        certificate = make_certificate(folder)
        if executable.endswith("nginx"):
            path = nginx_configuration(folder, certificate, port=port, processes=ports)
            command = [executable, "-c", str(path)]
        else:
            path = haproxy_configuration(folder, certificate, port=port, processes=ports)
            if "without" in name:
                text = await asyncio.to_thread(path.read_text, encoding="utf-8")
                text = re.sub(r"retries 3|option redispatch 1|retry-on .*", "", text)
                await asyncio.to_thread(path.write_text, text, encoding="utf-8")
            command = [executable, "-db", "-f", str(path)]

        async def restart() -> None:
            while True:
                for place, port in enumerate(ports):
                    processes[place].terminate()
                    await processes[place].wait()
                    processes[place] = await _start(folder / str(port), port, environment)

        spec = ChildSpec(name=name, command=command, log_path=folder / "proxy.log")
        try:
            async with supervise(spec, lambda: _up(port)):
                # Until it has checked the processes.
                await asyncio.sleep(3)
                trust = ssl.create_default_context(cafile=str(certificate.chain))
                yield f"https://127.0.0.1:{port}", restart, trust
        finally:
            for process in processes:
                if process.returncode is None:
                    process.kill()
                await process.wait()


async def _start(data_dir: Path, port: int, environment: Mapping[str, str]) -> Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "graph.cli", "serve", "--port", str(port),
        "--data-dir", str(data_dir), "--log-level", "error",
        env={**os.environ, "SHUTDOWN_DELAY_SECONDS": "5", **environment},
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    await _up(port)
    async with httpx.AsyncClient(trust_env=False) as http:
        while True:
            try:
                if (await http.get(f"http://127.0.0.1:{port}/readyz")).is_success:
                    return process
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)


def _cpu_seconds(pid: int) -> float:
    """Return what a server and its workers have used."""
    ticks = 0
    for one in (pid, *_workers_of(pid)):
        fields = Path(f"/proc/{one}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _workers_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in text.split()]


def _restarting(pid: int) -> Callable[[], Awaitable[None]]:
    async def restart() -> None:
        while True:
            before = set(await asyncio.to_thread(_workers_of, pid))
            os.kill(pid, signal.SIGHUP)
            while before & set(await asyncio.to_thread(_workers_of, pid)):  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    return restart


def _killing(pid: int) -> Callable[[], Awaitable[None]]:
    async def kill() -> None:
        await asyncio.sleep(1)
        os.kill((await asyncio.to_thread(_workers_of, pid))[0], signal.SIGKILL)

    return kill


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="orthanc-graphql-")


@asynccontextmanager
async def _server(workers: int, **environment: str) -> AsyncIterator[Server]:
    with _folder() as folder:
        async with open_server(
            Path(folder), arguments=("--workers", str(workers)), **environment
        ) as server:
            yield server


@asynccontextmanager
async def _index(size: IndexSize) -> AsyncIterator[dict[str, str]]:
    """Make an index; yields the settings of servers that show it without Orthanc."""
    with _folder() as folder:
        async with run_mongod(Path(folder)) as mongod:
            async with AsyncMongoClient[dict[str, Any]](mongod.url) as client:
                await fill(client[_DATABASE], size)
            yield {
                "MONGODB_URL": mongod.url,
                "MONGODB_DATABASE": _DATABASE,
                "ENABLE_PACS_INTEGRATION": "false",
                "FRAME_URL_KEYS": generate_key(),
            }


@asynccontextmanager
async def _set_of_three() -> AsyncIterator[tuple[str, dict[int, Child]]]:
    """Run a replica set as docs/deployment.md recommends it; a member that dies stays away."""
    ports = [find_free_port() for _ in range(3)]
    binary = find_mongod()
    async with AsyncExitStack() as stack:
        folder = Path(await asyncio.to_thread(stack.enter_context, _folder()))
        members: dict[int, Child] = {}
        for port in ports:
            data = folder / str(port)
            data.mkdir()
            spec = ChildSpec(
                name=f"member {port}",
                command=[
                    str(binary), "--dbpath", str(data), "--bind_ip", "127.0.0.1",
                    "--port", str(port), "--replSet", "rs0", "--nounixsocket",
                    "--wiredTigerCacheSizeGB", "0.25",
                ],
                log_path=folder / f"{port}.log",
            )  # fmt: skip
            members[port] = await stack.enter_async_context(supervise(spec, lambda: _up(port)))  # noqa: B023  # awaited at once
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        await _initiate(ports)
        yield f"mongodb://{hosts}/?replicaSet=rs0", members


async def _up(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


async def _initiate(ports: list[int]) -> None:
    url = f"mongodb://127.0.0.1:{ports[0]}/?directConnection=true"
    async with AsyncMongoClient[dict[str, Any]](url) as client:
        members = [{"_id": n, "host": f"127.0.0.1:{port}"} for n, port in enumerate(ports)]
        settings = {"electionTimeoutMillis": 2000}
        await client.admin.command(
            "replSetInitiate", {"_id": "rs0", "members": members, "settings": settings}
        )
        while not (await client.admin.command("hello")).get("isWritablePrimary"):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def _main(names: list[str]) -> None:
    for drill in _DRILLS:
        if not names or drill.__name__ in names:
            print(f"{drill.__name__}: {await drill()}", flush=True)  # noqa: T201  # its output


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:]))
