"""The renderer processes, seen from inside: a template that forks, and workers that render.

    python -I -c ... services.frames.worker <descriptor> <memory_bytes> <seconds>

The template is a fresh interpreter that has loaded the decoders and holds nothing of the server's:
no environment, no descriptor but its end of a socket. It forks a worker in milliseconds. A worker
reads a request (length, pickled `RenderRequest`) and answers a status, a length and bytes; never a
pickle, because the server would execute what a worker that was taken over pickled.
"""

import gc
import os
import pickle
import signal
import socket
import struct
import sys
from enum import IntEnum
from typing import Any

from services.errors import FrameDamaged, FrameNotRenderable
from services.frames.rendering import RenderRequest, decode, load_codecs, show
from services.frames.sandbox import (
    die_with_parent,
    filter_system_calls,
    limit_processor_time,
    limit_resources,
)

COMMAND = struct.Struct("!Bq")
"""From the server to the template: what to do, and a process id. A fork carries a descriptor."""

REPLY = struct.Struct("!q")
"""From the template: the process id of a new worker; first of all 1 or 0, whether the system
filters the calls of workers."""

REQUEST_HEAD = struct.Struct("!Q")
"""Bytes of the request that follows."""

ANSWER_HEAD = struct.Struct("!BQ")
"""Status and bytes of the answer that follows."""


class Command(IntEnum):
    """What the template is asked to do."""

    FORK = 1
    KILL = 2


class Status(IntEnum):
    """How a request ended."""

    RENDERED = 1
    NOT_RENDERABLE = 2
    OUT_OF_MEMORY = 3
    DAMAGED = 4


def run_template(control: socket.socket, *, memory_bytes: int, seconds: float) -> None:
    """Fork workers until the other end of `control` closes; then all of them end.

    Args:
        control: Carries commands; see `Command`.
        memory_bytes: Largest address space of a worker.
        seconds: Processor time for one frame.
    """
    load_codecs()
    nothing = os.open(os.devnull, os.O_RDWR)
    # What is loaded stays shared: a collection in a worker would copy every page.
    gc.freeze()
    control.sendall(REPLY.pack(_can_filter()))
    workers: set[int] = set()
    while True:
        command, descriptors, _, _ = socket.recv_fds(control, COMMAND.size, 1)
        workers -= {pid for pid in workers if os.waitpid(pid, os.WNOHANG)[0]}
        if len(command) < COMMAND.size:
            return
        kind, pid = COMMAND.unpack(command)
        if kind == Command.KILL:
            # One that has ended already was waited for above: its number may be another's.
            if pid in workers:
                os.kill(pid, signal.SIGKILL)
            continue
        child = os.fork()
        if child == 0:
            control.close()
            # The decoders of a hostile picture may write whatever they like, and never block.
            os.dup2(nothing, sys.stderr.fileno())
            _run_worker(descriptors[0], memory_bytes=memory_bytes, seconds=seconds)
        workers.add(child)
        os.close(descriptors[0])
        control.sendall(REPLY.pack(child))


def _can_filter() -> bool:
    """Try the filter in a process of its own."""
    child = os.fork()
    if child == 0:
        os._exit(0 if filter_system_calls() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _run_worker(descriptor: int, *, memory_bytes: int, seconds: float) -> None:
    """Render what is asked for; never returns."""
    try:
        die_with_parent()
        limit_resources(memory_bytes=memory_bytes)
        filter_system_calls()
        desk = _Desk()
        with socket.socket(fileno=descriptor) as connection:
            while (size := _next_size(connection)) is not None:
                limit_processor_time(seconds)
                status, content = desk.answer(connection, size)
                connection.sendall(ANSWER_HEAD.pack(status, len(content)))
                connection.sendall(content)
    finally:
        os._exit(0)


class _Desk:
    """Answers requests; keeps what the last frame was decoded to.

    Who drags a window over a JPEG 2000 radiograph asks for one frame again and again, and decoding
    it takes ten times as long as showing it.
    """

    def __init__(self) -> None:
        self._last: tuple[RenderRequest, Any] | None = None

    def answer(self, connection: socket.socket, size: int) -> tuple[Status, bytes]:
        """Render what a pickled `RenderRequest` of so many bytes asks for."""
        try:
            request = pickle.loads(_receive(connection, size))  # noqa: S301  # the server made it
            return Status.RENDERED, self._render(request)
        except FrameDamaged as exc:
            return Status.DAMAGED, exc.message.encode()
        except FrameNotRenderable as exc:
            return Status.NOT_RENDERABLE, exc.message.encode()
        except MemoryError:
            return Status.OUT_OF_MEMORY, b""
        except Exception:  # noqa: BLE001  # a damaged frame makes decoders raise whatever they raise
            return Status.NOT_RENDERABLE, b""

    def _render(self, request: RenderRequest) -> bytes:
        if self._last is None or not _is_same_frame(self._last[0], request):
            # First forget: two decoded frames may take more memory than there is.
            self._last = None
            self._last = request, decode(request)
        return show(self._last[1], request)


def _is_same_frame(one: RenderRequest, other: RenderRequest) -> bool:
    return (one.bit_offset, one.description, one.content) == (
        other.bit_offset,
        other.description,
        other.content,
    )


def _next_size(connection: socket.socket) -> int | None:
    """Return the bytes of the next request; None when the server has closed the connection."""
    try:
        (size,) = REQUEST_HEAD.unpack(_receive(connection, REQUEST_HEAD.size))
    except EOFError:
        return None
    return int(size)


def _receive(connection: socket.socket, size: int) -> bytearray:
    """Receive so many bytes.

    Raises:
        EOFError: The server has closed the connection.
        MemoryError: There is no room for them; they are thrown away, so that the next request is
            the next that is read.
    """
    try:
        content = bytearray(size)
    except MemoryError:
        while size > 0:
            size -= _receive_some(connection, memoryview(_DISCARDED)[:size])
        raise
    view, received = memoryview(content), 0
    while received < size:
        received += _receive_some(connection, view[received:])
    return content


_DISCARDED = bytearray(64 * 1024)


def _receive_some(connection: socket.socket, into: memoryview) -> int:
    count = connection.recv_into(into)
    if count == 0:
        raise EOFError
    return count


def main(arguments: list[str]) -> None:
    """Run the template: descriptor of its socket, memory in bytes, seconds."""
    descriptor, memory_bytes, seconds = int(arguments[0]), int(arguments[1]), float(arguments[2])
    # A Ctrl-C in the terminal is for the server, which ends its renderers in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=descriptor) as control:
        run_template(control, memory_bytes=memory_bytes, seconds=seconds)


if __name__ == "__main__":
    main(sys.argv[1:])
