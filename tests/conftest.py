"""Options and fixtures of the whole test run."""

import asyncio
import gc
import os
import signal
import socket
import traceback
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from pymongo import pool_shared
from pymongo.network_layer import AsyncNetworkingInterface


def pytest_configure() -> None:
    # A shell lets its background jobs ignore SIGINT, and the processes that tests start and
    # interrupt would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Hypothesis measures each example by the clock, which says nothing on a busy machine.
    hypothesis.settings.register_profile("tests", deadline=None)
    hypothesis.settings.load_profile("tests")


_CLIENTS = [Path(__file__).parent / name for name in ("browser", "frontend")]
"""Folders whose tests are clients of servers in processes of their own."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests of browsers and front ends, without coverage, which sees nothing there.

    pytest-xdist gives each process a part of the list, and takes from its end for those that have
    nothing left: so one process starts these servers, and stops them long before the others end.
    """
    items.sort(key=_place)
    for item in items:
        if _place(item) < len(_CLIENTS):
            item.add_marker("no_cover")


def _place(item: pytest.Item) -> int:
    places = (place for place, folder in enumerate(_CLIENTS) if folder in item.path.parents)
    return next(places, len(_CLIENTS))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """End the measurement that pytest-cov 7 begins in a worker of pytest-xdist before its own.

    It would go on wherever the other one pauses, for tests that are marked `no_cover`.
    """
    plugin = session.config.pluginmanager.getplugin("_cov")
    controller = getattr(plugin, "cov_controller", None)
    if controller is not None and hasattr(session.config, "workerinput"):
        controller.cov.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: "pytest.CallInfo[None]") -> Generator[None, Any, Any]:
    """Add to the report of a test that took too long what every task waits for."""
    report = yield
    if call.excinfo is not None and "from pytest-timeout" in str(call.excinfo.value):
        tasks = [one for one in gc.get_objects() if isinstance(one, asyncio.Task)]
        waiting = "\n".join(_describe_wait(task) for task in tasks if not task.done())
        report.sections.append(("Tasks", waiting))
    return report


def _describe_wait(task: "asyncio.Task[Any]") -> str:
    lines = [f"{task.get_name()}:"]
    waits: Any = task.get_coro()
    while waits is not None:
        frame = getattr(waits, "cr_frame", None) or getattr(waits, "ag_frame", None)
        place = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else repr(waits)
        lines.append(f"  {place}")
        waits = getattr(waits, "cr_await", None) or getattr(waits, "ag_await", None)
    return "\n".join(lines)


@pytest.fixture(scope="session", autouse=True)
def closed_pymongo_sockets() -> Iterator[None]:
    """Close what a MongoDB client leaves that is closed while it connects.

    PyMongo 4.20 leaves the socket of a cancelled connection to the garbage collector, and a
    connection that is cancelled before its handshake; their ResourceWarnings fail whichever test
    runs at that moment. A client that is never closed is still reported, by its own warning.
    """
    connect = pool_shared._async_create_connection
    open_interface = pool_shared._configured_protocol_interface
    opened: list[AsyncNetworkingInterface] = []

    async def connect_or_close(*arguments: Any) -> socket.socket:
        try:
            return await connect(*arguments)
        except asyncio.CancelledError as cancelled:
            for frame, _ in traceback.walk_tb(cancelled.__traceback__):
                created = frame.f_locals.get("sock")
                if isinstance(created, socket.socket):
                    created.close()
            raise

    async def open_and_keep(*arguments: Any) -> AsyncNetworkingInterface:
        interface = await open_interface(*arguments)
        opened[:] = [one for one in opened if not one.is_closing()]
        opened.append(interface)
        return interface

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(pool_shared, "_async_create_connection", connect_or_close)
        patch.setattr("pymongo.asynchronous.pool._configured_protocol_interface", open_and_keep)
        yield
        warnings.simplefilter("ignore", ResourceWarning)
        opened.clear()
        gc.collect()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--mutations",
        type=int,
        default=int(os.environ.get("MUTATIONS", "80")),
        help="damaged files of each of three kinds that the hostile tests make; 667 are 2,000 in "
        "all (default: MUTATIONS, else 80)",
    )
    parser.addoption(
        "--fuzz-cases",
        type=int,
        default=4,
        help="cases that schemathesis makes for each operation",
    )
