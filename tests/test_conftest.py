"""What the tests' environment promises to every test."""

import asyncio
import gc
import signal
import socket
import subprocess
import sys
import warnings

import pytest
from pymongo import pool_shared
from pymongo.pool_options import PoolOptions


def test_processes_of_tests_can_be_interrupted() -> None:
    print_handler = "import signal; print(signal.getsignal(signal.SIGINT).__name__)"
    printed = subprocess.run(  # noqa: S603  # a literal
        [sys.executable, "-c", print_handler], capture_output=True, check=True, text=True
    )
    assert printed.stdout == "default_int_handler\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.no_cover
def test_what_is_marked_so_runs_without_coverage() -> None:
    assert sys.gettrace() is None


async def test_a_cancelled_connection_to_mongodb_leaves_no_socket() -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1")
    async with server:
        address = server.sockets[0].getsockname()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ResourceWarning)
            for turns in range(30):
                await _connect_and_cancel(address, turns)
            gc.collect()
    assert [str(warning.message) for warning in caught] == []


def test_an_event_loop_that_ends_while_mongodb_is_connected_leaves_no_socket() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        for turns in range(30):
            asyncio.run(_begin_to_connect(turns))
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


async def _begin_to_connect(turns: int) -> None:
    connecting = asyncio.create_task(
        pool_shared._async_create_connection(("127.0.0.1", 9), PoolOptions(connect_timeout=10))
    )
    for _ in range(turns):
        await asyncio.sleep(0)
    # asyncio.run() cancels the task unless it has failed by now.
    if connecting.done():
        assert isinstance(connecting.exception(), OSError)


async def _connect_and_cancel(address: tuple[str, int], turns: int) -> None:
    """Connect as PyMongo does, and cancel that after some turns of the event loop."""
    connecting = asyncio.create_task(
        pool_shared._async_create_connection(address, PoolOptions(connect_timeout=10))
    )
    for _ in range(turns):
        await asyncio.sleep(0)
    connecting.cancel()
    [connected] = await asyncio.gather(connecting, return_exceptions=True)
    if isinstance(connected, socket.socket):
        connected.close()
