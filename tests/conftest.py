"""Options and fixtures of the whole test run."""

import asyncio
import signal
import socket
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from pymongo import pool_shared


def pytest_configure() -> None:
    # A shell lets its background jobs ignore SIGINT, and the processes that tests start and
    # interrupt would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def closed_pymongo_sockets() -> Iterator[None]:
    """Close the socket of a MongoDB client that is closed while it connects.

    PyMongo 4.20 leaves it to the garbage collector, whose ResourceWarning fails whichever test runs
    at that moment.
    """
    connect = pool_shared._async_create_connection

    async def connect_or_close(*arguments: Any) -> socket.socket:
        try:
            return await connect(*arguments)
        except asyncio.CancelledError as cancelled:
            for frame, _ in traceback.walk_tb(cancelled.__traceback__):
                opened = frame.f_locals.get("sock")
                if isinstance(opened, socket.socket):
                    opened.close()
            raise

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool_shared, "_async_create_connection", connect_or_close)
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--mutations",
        type=int,
        default=200,
        help="damaged files of each kind that the hostile tests make",
    )
    parser.addoption(
        "--fuzz-cases",
        type=int,
        default=10,
        help="cases that schemathesis makes for each operation",
    )
