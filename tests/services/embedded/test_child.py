import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from services.embedded.child import ChildSpec, bound_to_parent, restart_delay, supervise
from services.embedded.failures import StartFailed


def test_the_first_death_costs_no_pause_and_repeated_early_ones_more_and_more() -> None:
    delays = [restart_delay(short_lives) for short_lives in (0, 1, 2, 3, 4, 100)]
    assert delays == [0.0, 0.0, 0.1, 0.2, 0.4, 5.0]


def test_a_command_is_bound_to_the_thread_that_starts_it() -> None:
    setpriv = shutil.which("setpriv")
    assert bound_to_parent(["mongod", "--quiet"]) == [
        setpriv, "--pdeathsig", "KILL", "--", "mongod", "--quiet",
    ]  # fmt: skip


def test_without_setpriv_a_command_runs_unbound_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert bound_to_parent(["mongod"]) == ["mongod"]
    assert "would outlive a SIGKILL" in caplog.text


async def test_a_child_that_is_killed_is_started_again(tmp_path: Path) -> None:
    restarted = asyncio.Event()
    names: list[str] = []

    def note(name: str) -> None:
        names.append(name)
        restarted.set()

    spec = ChildSpec("Sleeper", ["sleep", "1000"], tmp_path / "sleeper.log", note)
    async with supervise(spec, _at_once) as child:
        first = child.pid
        os.kill(first, signal.SIGKILL)
        await asyncio.wait_for(restarted.wait(), 30)
        assert child.pid != first
        assert child.restarts == 1
        assert names == ["Sleeper"]
        last = child.pid
    assert not _runs(last)


async def test_a_child_that_ends_at_its_start_fails_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('disk on fire'); raise SystemExit(3)"]
    spec = ChildSpec("Burner", command, tmp_path / "burner.log")
    with pytest.raises(StartFailed) as caught:
        async with supervise(spec, _never):
            pytest.fail("it is not ready")
    assert caught.value.message == (
        f"Burner stopped at its start (exit code 3). Its log: {tmp_path / 'burner.log'}"
    )
    assert caught.value.detail == "disk on fire\n"


async def test_a_child_that_is_never_ready_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.embedded.child._READY_SECONDS", 3.0)
    pid_file = tmp_path / "pid"
    script = f"echo $$ > {pid_file}; exec sleep 1000"
    spec = ChildSpec("Dawdler", ["sh", "-c", script], tmp_path / "dawdler.log")
    with pytest.raises(StartFailed, match="Dawdler hangs"):
        async with supervise(spec, _never):
            pytest.fail("it is not ready")
    assert not _runs(int(pid_file.read_text()))


async def test_a_child_that_ignores_sigterm_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.embedded.child._STOP_SECONDS", 0.05)
    ready = tmp_path / "ready"
    script = f"trap '' TERM; touch {ready}; while true; do sleep 0.05; done"
    spec = ChildSpec("Stubborn", ["sh", "-c", script], tmp_path / "stubborn.log")

    async def trap_is_set() -> None:
        await _until(ready.exists)

    async with supervise(spec, trap_is_set) as child:
        pid = child.pid
    assert not _runs(pid)


async def test_the_log_of_the_last_run_is_kept_beside_the_new_one(tmp_path: Path) -> None:
    log = tmp_path / "talker.log"
    log.write_text("the run before")
    spec = ChildSpec("Talker", ["sh", "-c", "echo hello; sleep 1000"], log)

    async def has_spoken() -> None:
        await _until(lambda: log.exists() and log.read_text() == "hello\n")

    async with supervise(spec, has_spoken):
        assert (tmp_path / "talker.last.log").read_text() == "the run before"
        assert log.stat().st_mode & 0o777 == 0o600


async def test_a_child_sees_none_of_the_secrets_in_our_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRAME_URL_KEYS", "k1:secret")
    spec = ChildSpec("Sleeper", ["sleep", "1000"], tmp_path / "sleeper.log")
    async with supervise(spec, _at_once) as child:
        environment = _environment_of(child.pid)
    assert b"secret" not in environment


async def test_a_program_that_is_missing_fails_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.embedded.child.bound_to_parent", list)
    spec = ChildSpec("Ghost", ["/nowhere/ghost"], tmp_path / "ghost.log")
    with pytest.raises(StartFailed, match="Ghost can't be started"):
        async with supervise(spec, _at_once):
            pytest.fail("it does not exist")


async def test_a_program_that_is_away_for_a_while_is_tried_until_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("services.embedded.child.bound_to_parent", list)
    program, away = tmp_path / "program", tmp_path / "away"
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)
    spec = ChildSpec("Upgraded", [str(program)], tmp_path / "upgraded.log")
    async with supervise(spec, _at_once) as child:
        program.rename(away)
        os.kill(child.pid, signal.SIGKILL)
        async with asyncio.timeout(30):
            await _until(lambda: "Upgraded can't be started" in caplog.text)
            away.rename(program)
            await _until(lambda: child.restarts == 1)
        assert _runs(child.pid)


async def _at_once() -> None:
    return


async def _never() -> None:
    await asyncio.Event().wait()


async def _until(holds: Callable[[], bool]) -> None:
    while True:
        if holds():
            return
        await asyncio.sleep(0.01)


def _runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()
