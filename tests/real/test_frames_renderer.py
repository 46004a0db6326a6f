"""Renderer processes that are killed, hang, take too much memory, or lose their server."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from services.dicom.display import FrameDisplay, PixelDescription
from services.errors import FrameNotRenderable, RendererCrashed
from services.frames import renderer
from services.frames.renderer import RendererLimits, RendererPool, open_renderers
from services.frames.rendering import RenderRequest, render_frame
from services.frames.variant import FrameVariant
from tests.patience import PATIENCE_SECONDS

LOSSLESS_JPEG_2000 = "1.2.840.10008.1.2.4.90"
SIDE = 64


def request(seed: int = 1, variant: FrameVariant | None = None) -> RenderRequest:
    """Make a JPEG 2000 frame of its own."""
    values = np.random.default_rng(seed).integers(0, 4095, (SIDE, SIDE), dtype=np.uint16)
    content = bytes(imagecodecs.jpeg2k_encode(values, level=0, codecformat="J2K"))
    description = PixelDescription(
        transfer_syntax_uid=LOSSLESS_JPEG_2000,
        rows=SIDE,
        columns=SIDE,
        bits_stored=12,
        high_bit=11,
    )
    return RenderRequest(content, description, FrameDisplay(), variant or FrameVariant())


@pytest.fixture
async def pool() -> AsyncIterator[RendererPool]:
    async with open_renderers(RendererLimits(processes=2, seconds=30)) as opened:
        yield opened


def template_of(pool: RendererPool) -> int:
    assert pool._template is not None
    return pool._template.pid


def said_of(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text(encoding="ascii")


def descriptors_of(pid: int) -> list[str]:
    """What the descriptors of a process are, sockets without their numbers."""
    found = [str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir()]
    return sorted(target.split(":")[0] for target in found)


def workers_of(template: int) -> list[int]:
    return [int(pid) for pid in said_of(template, f"task/{template}/children").split()]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110  # the kernel tells nobody
            await asyncio.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        state = said_of(pid, "stat").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def is_stopped(pid: int) -> bool:
    return said_of(pid, "stat").rpartition(")")[2].split()[0] == "T"


async def hold_idle_workers(pool: RendererPool) -> list[int]:
    """Stop the workers that wait, so that the next frames hang until they go on."""
    held = pool.worker_pids
    for pid in held:
        os.kill(pid, signal.SIGSTOP)
    for pid in held:
        await until(lambda pid=pid: is_stopped(pid))  # type: ignore[misc]  # bound at once
    return held


async def test_a_renderer_makes_the_same_picture_and_holds_nothing_of_the_server(
    pool: RendererPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRAME_URL_KEYS", "k1:secret")
    window = request(variant=FrameVariant(100, 0.5))
    assert await pool.render(request()) == render_frame(request())
    assert await pool.render(window) == render_frame(window)
    (worker,) = pool.worker_pids
    for pid in (worker, template_of(pool)):
        environment = said_of(pid, "environ")
        assert "FRAME_URL_KEYS" not in environment
        assert "PATH=" not in environment
    status = said_of(worker, "status")
    assert "Seccomp:\t2" in status
    assert "NoNewPrivs:\t1" in status
    assert descriptors_of(worker) == [*["/dev/null"] * 4, "socket"]
    limits = said_of(worker, "limits")
    address_space = next(line for line in limits.splitlines() if "Max address space" in line)
    assert address_space.split()[3] == str(RendererLimits().memory_bytes)


_ATTEMPTS = """
import os, socket, sys
from services.frames.sandbox import filter_system_calls
sys.stdout.reconfigure(line_buffering=True)
parent = os.getppid()
if not filter_system_calls():
    sys.exit("no filter")
attempts = [
    lambda: open("/etc/passwd"),
    lambda: os.open("/tmp/written", os.O_CREAT | os.O_WRONLY),
    lambda: socket.socket(),
    lambda: socket.socket(socket.AF_UNIX),
    lambda: os.execv("/bin/true", ["true"]),
    lambda: os.kill(parent, 0),
    lambda: os.unlink("/tmp/nothing"),
    lambda: os.rename("/tmp/nothing", "/tmp/other"),
    lambda: os.pidfd_open(parent),
    lambda: os.memfd_create("x"),
]
for number, attempt in enumerate(attempts):
    try:
        attempt()
    except PermissionError:
        continue
    except OSError as exc:
        sys.exit(f"{number}: {exc!r}")
    sys.exit(f"{number} succeeded")
print("all refused")
"""


def test_the_filter_refuses_files_network_programs_and_other_processes() -> None:
    done = subprocess.run(  # noqa: S603  # this interpreter
        [sys.executable, "-c", _ATTEMPTS], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr) == ("all refused\n", "")


async def test_a_killed_worker_costs_its_own_frame_only_and_is_back_at_once(
    pool: RendererPool,
) -> None:
    async def seconds_without_it() -> float:
        await asyncio.gather(*(pool.render(request(seed)) for seed in range(8)))
        (*_, held) = await hold_idle_workers(pool)
        dying = asyncio.create_task(pool.render(request(1)))
        await until(lambda: held not in pool.worker_pids)
        os.kill(held, signal.SIGKILL)
        killed_at = time.monotonic()
        with pytest.raises(RendererCrashed):
            await dying
        for pid in pool.worker_pids:
            os.kill(pid, signal.SIGCONT)
        assert await pool.render(request(2)) == render_frame(request(2))
        return time.monotonic() - killed_at

    # A pause before the next worker would show each time; other processes show now and then.
    for _ in range(3):
        if await seconds_without_it() < 1.5:
            break
    else:
        pytest.fail("The next worker comes late.")


async def test_a_worker_that_was_killed_while_it_waited_costs_no_frame(pool: RendererPool) -> None:
    await pool.render(request())
    (waiting,) = pool.worker_pids
    os.kill(waiting, signal.SIGKILL)
    await until(lambda: not is_running(waiting))
    assert await pool.render(request()) == render_frame(request())
    assert pool.worker_pids != [waiting]


async def test_a_frame_that_hangs_is_ended_by_the_server() -> None:
    async with open_renderers(RendererLimits(processes=1, seconds=1)) as pool:
        await pool.render(request())
        (hanging,) = await hold_idle_workers(pool)
        with pytest.raises(RendererCrashed) as crashed:
            await pool.render(request())
        assert crashed.value.message == "This frame took longer than 1 s."
        await until(lambda: not is_running(hanging))
        assert await pool.render(request(3)) == render_frame(request(3))


@pytest.mark.parametrize("room", [40, 100], ids=["for no request", "for the request alone"])
async def test_a_frame_that_takes_too_much_memory_fails_alone(
    pool: RendererPool, room: int
) -> None:
    # What is loaded takes as many addresses as the libraries of this machine do.
    await pool.render(request())
    status = said_of(template_of(pool), "status").splitlines()
    loaded = next(int(line.split()[1]) for line in status if line.startswith("VmSize:"))
    memory_bytes = loaded * 1024 + room * 1024**2
    side = 6000
    description = PixelDescription(
        transfer_syntax_uid="1.2.840.10008.1.2.1", rows=side, columns=side
    )
    large = RenderRequest(bytes(2 * side * side), description, FrameDisplay(), FrameVariant())
    async with open_renderers(RendererLimits(processes=1, memory_bytes=memory_bytes)) as small:
        with pytest.raises(RendererCrashed, match="more memory"):
            await small.render(large)
        assert await small.render(request()) == render_frame(request())


async def test_a_damaged_frame_is_refused_with_the_reason_and_ends_nothing(
    pool: RendererPool,
) -> None:
    good = request()
    await pool.render(good)
    (worker,) = pool.worker_pids
    bad = RenderRequest(good.content[:200], good.description, good.display, good.variant)
    with pytest.raises(FrameNotRenderable) as refused:
        await pool.render(bad)
    with pytest.raises(FrameNotRenderable) as here:
        render_frame(bad)
    assert refused.value.message == here.value.message
    assert pool.worker_pids == [worker]


async def test_the_end_of_all_renderers_costs_no_frame(pool: RendererPool) -> None:
    await pool.render(request())
    template, held = template_of(pool), await hold_idle_workers(pool)
    waiting = asyncio.create_task(pool.render(request(4)))
    await until(lambda: pool.worker_pids == [])
    os.kill(template, signal.SIGKILL)
    assert await waiting == render_frame(request(4))
    assert not any(is_running(pid) for pid in held)


async def test_a_cancelled_caller_never_gets_anybody_the_wrong_picture() -> None:
    async with open_renderers(RendererLimits(processes=1, seconds=30)) as pool:
        await pool.render(request(0))
        (held,) = await hold_idle_workers(pool)
        cancelled = asyncio.create_task(pool.render(request(1)))
        await until(lambda: pool.worker_pids == [])
        cancelled.cancel()
        next_ones = [asyncio.create_task(pool.render(request(seed))) for seed in (2, 3)]
        os.kill(held, signal.SIGCONT)
        assert await asyncio.gather(*next_ones) == [render_frame(request(seed)) for seed in (2, 3)]
        assert cancelled.cancelled()


async def test_a_worker_is_replaced_after_so_many_frames(
    pool: RendererPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renderer, "FRAMES_OF_A_WORKER", 2)
    await pool.render(request())
    (first,) = pool.worker_pids
    await pool.render(request())
    assert pool.worker_pids == []
    await until(lambda: not is_running(first))
    await pool.render(request())
    assert first not in pool.worker_pids


_SERVER = """
import asyncio
from services.frames.renderer import RendererLimits, open_renderers
from tests.real.test_frames_renderer import request
async def main():
    async with open_renderers(RendererLimits(processes=2)) as pool:
        await asyncio.gather(*(pool.render(request(seed)) for seed in range(4)))
        print(pool._template.pid, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_renderers_end_with_a_server_that_is_killed() -> None:
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _SERVER, stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    template = int(await server.stdout.readline())
    processes = [template, *workers_of(template)]
    assert len(processes) > 1
    server.kill()
    await server.wait()
    await until(lambda: not any(is_running(pid) for pid in processes))
