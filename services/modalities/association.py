"""Associations with modalities, by pynetdicom: the one place that knows it.

An association blocks, so each one has a thread for as long as it lasts. Nothing in it may wait
without end: pynetdicom's own time-outs do not hold where a peer sends half a message, or takes
none. So the event loop watches every association, and closes its connection when the peer was
silent for too long, when its time is up, or when its caller is cancelled; every wait of the thread
ends then.
"""

import asyncio
import contextlib
import select
import socket
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.pdu import A_ASSOCIATE_RJ
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at run time
from pynetdicom.transport import T_CONNECT, AddressInformation, AssociationSocket

from services.errors import ModalityError, TooManyRequests
from services.modalities import faults
from services.modalities.tls import TlsSocket
from services.tasks import cancel_and_wait, finish_in_thread

# Identifiers of queries and answers are patient data.
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False
_config.LOG_HANDLER_LEVEL = "none"
# Files of a C-GET come into temporary files, not into memory.
_config.STORE_RECV_CHUNKED_DATASET = True
# Files that are sent go as they are, without being read into datasets.
_config.STORE_SEND_CHUNKED_DATASET = True

SUCCESS = 0x0000
CANCELLED = 0xFE00
_PENDING = frozenset({0xFF00, 0xFF01})

_CONNECT_SECONDS = 10.0
"""A machine that is there answers a connection in less."""

_RELEASE_SECONDS = 2.0
"""What was asked for is done: a peer that does not answer the release is left."""

_CANCEL_SECONDS = 2.0
"""A peer that was told to stop has this long; then the association ends."""

_WATCH_SECONDS = 0.1

_PDU_BYTES_MAX = 1024 * 1024
"""This side asks for PDUs of 16 kB (PS3.8 D.1); pynetdicom would read one of 4 GiB into memory."""

_MESSAGES_WAITING = 64
"""Messages that came and were not looked at yet: meanwhile nothing more is read from the peer."""

_MESSAGE_BYTES_MAX = 1024 * 1024
"""Of one answer to a query, which has some kB: it is in memory until it is complete."""

_THREADS = 16
"""Associations of queries and echoes at once."""

_JOB_THREADS = 64
"""More than JOB_CONCURRENCY is ever set to; a thread is made when it is needed."""

_PER_PEER = 4
"""Of these with one peer: a hanging one must leave threads for the others."""

_TURN_SECONDS = 5.0
"""Longest wait for a thread."""

_T = TypeVar("_T")


class _Socket(AssociationSocket):
    """A socket that is closed when it is no longer used, whatever its number.

    pynetdicom leaves a socket open that did not connect, or whose peer was first to close, and
    takes one with a number above 1023 for closed (`select`). It also reads into memory whatever a
    peer sends; here no more than is used.

    Attributes:
        tls_fault: Why the TLS connection failed; None if it did not.
    """

    tls_fault: OSError | None = None

    def connect(self, primitive: T_CONNECT) -> None:
        opened = self.socket
        super().connect(primitive)
        if not self._is_connected and opened is not None:
            opened.close()

    def recv(self, nr_bytes: int) -> bytearray:
        if nr_bytes > _PDU_BYTES_MAX:
            message = "a PDU is too long"
            raise OSError(message)
        return super().recv(nr_bytes)

    @property
    def ready(self) -> bool:
        if self.socket is None or not self._is_connected:
            return False
        if self._assoc.dimse.msg_queue.qsize() >= _MESSAGES_WAITING:
            return False
        waiting = select.poll()
        try:
            waiting.register(self.socket, select.POLLIN)
        except (OSError, ValueError):
            self.event_queue.put("Evt17")
            return False
        # What is decrypted already is no longer in the kernel.
        is_buffered = isinstance(self.socket, TlsSocket) and self.socket.pending() > 0
        return is_buffered or bool(waiting.poll(0))

    def _shutdown_socket(self) -> None:
        if self.socket is not None:
            if isinstance(self.socket, TlsSocket):
                self.tls_fault = self.socket.fault
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()


class _Entity(AE):
    opened: _Socket | None = None

    def _create_socket(
        self,
        assoc: Association,
        address: AddressInformation,
        tls_args: Any,  # noqa: ANN401
    ) -> AssociationSocket:
        self.opened = _Socket(assoc, address=address)
        self.opened.tls_args = tls_args
        return self.opened


@dataclass(frozen=True, slots=True)
class Peer:
    """The other side of an association.

    Attributes:
        name: Of the modality, for messages.
        ae_title: Its AE title.
        host: Its name or address.
        port: Its TCP port.
        calling: AE title of this server.
        silence_seconds: It is given up when nothing came for so long.
        tls: Encrypts the connection; None: it is not encrypted.
    """

    name: str
    ae_title: str
    host: str
    port: int
    calling: str
    silence_seconds: float
    tls: ssl.SSLContext | None = None


class Link:
    """One association: used by the thread that opened it, watched and ended by others.

    Args:
        peer: The other side.
        clock: Seconds that never go back.
    """

    def __init__(self, peer: Peer, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.peer = peer
        self.is_expired = False
        self.rejection: A_ASSOCIATE_RJ | None = None
        self._clock = clock
        self._lock = threading.Lock()
        self._heard_at: float | None = None
        self._is_busy = False
        self._association: Association | None = None
        self._fault: ModalityError | None = None
        self._is_given_up = False
        self._operation: tuple[int, int] | None = None
        self._message_bytes = 0

    def touch(self) -> None:
        """Note a sign of life."""
        self._heard_at = self._clock()

    def received(self, size: int, most: int) -> None:
        """Note a part of a message, and leave a peer whose message has no end.

        Args:
            size: Of the part, in bytes.
            most: Of the message.
        """
        self.touch()
        self._message_bytes += size
        if self._message_bytes > most:
            self.give_up(faults.too_large(self.peer.name, most))

    def message_ended(self) -> None:
        """Note that a message is complete."""
        self._message_bytes = 0

    @contextmanager
    def busy(self) -> Iterator[None]:
        """While the block runs, this side works and the peer waits."""
        self._is_busy = True
        try:
            yield
        finally:
            self._is_busy = False
            self.touch()

    @property
    def silent_seconds(self) -> float:
        """How long nothing came and nothing was taken; 0 while it has not begun."""
        if self._is_busy or self._heard_at is None:
            return 0.0
        return self._clock() - self._heard_at

    @property
    def has_begun(self) -> bool:
        """Whether its thread is there."""
        return self._heard_at is not None

    def note(self, pdu: object) -> None:
        """Keep a rejection.

        pynetdicom drops it if the peer closed the connection before the requesting thread runs.
        """
        if isinstance(pdu, A_ASSOCIATE_RJ):
            self.rejection = pdu

    def give_up(self, fault: ModalityError | None = None) -> None:
        """Close the connection; every wait of the thread ends. Does not block; of any thread.

        Args:
            fault: Why, raised to the thread; None: the caller was cancelled.
        """
        with self._lock:
            if not self._is_given_up:
                self._is_given_up, self._fault = True, fault
            association = self._association
        if association is not None:
            _disconnect(association)

    def cancel(self) -> bool:
        """Tell the peer to stop what it is doing (C-CANCEL). Does not block; of any thread.

        Returns:
            Whether there was something to stop.
        """
        association, operation = self._association, self._operation
        if association is None or operation is None or not association.is_established:
            return False
        with contextlib.suppress(RuntimeError):
            association.send_c_cancel(operation[0], context_id=operation[1])
        return True

    def expire(self) -> None:
        """End the operation because its time is up: what has come counts."""
        self.is_expired = True
        self.cancel()

    @contextmanager
    def operation(self, message_id: int, context_id: int) -> Iterator[None]:
        """While the block runs, `cancel` stops this operation."""
        self._operation = message_id, context_id
        try:
            yield
        finally:
            self._operation = None

    def fault(self) -> ModalityError:
        """Return why there is no answer."""
        return self._fault or faults.closed(self.peer.name, is_encrypted=self.peer.tls is not None)

    def status(self, answer: Dataset) -> int:
        """Return the status of an answer.

        Raises:
            ModalityError: There was none.
        """
        status = answer.get("Status")
        if status is None:
            raise self.fault()
        return int(status)

    def opened(self, association: Association) -> None:
        """Take the association whose connection was just opened."""
        with self._lock:
            self._association = association
            is_given_up = self._is_given_up
        self.touch()
        if is_given_up:
            _disconnect(association)


def _disconnect(association: Association) -> None:
    # `shutdown` wakes a thread that reads from or writes to the socket; `close` does not.
    connection = association.dul.socket
    opened = connection.socket if connection is not None else None
    if opened is not None:
        with contextlib.suppress(OSError):
            opened.shutdown(socket.SHUT_RDWR)
    association.dimse.msg_queue.put((None, None))


@contextmanager
def associated(
    link: Link,
    contexts: Sequence[PresentationContext],
    *,
    what: str,
    handlers: Sequence[tuple[Any, Callable[..., Any]]] = (),
    negotiation: Sequence[Any] = (),
    message_bytes_max: int | None = None,
) -> Iterator[Association]:
    """Open an association while the block runs; blocks.

    Args:
        link: With whom.
        contexts: What is proposed, at most 128.
        what: For the message when none is accepted, such as `C-FIND`.
        handlers: Of events, as pynetdicom takes them.
        negotiation: Extended negotiation, likewise.
        message_bytes_max: Of one message; None: 1 MiB, which is enough for answers.

    Raises:
        ModalityError: There is no association, and why.
    """
    most = _MESSAGE_BYTES_MAX if message_bytes_max is None else message_bytes_max
    watched = [
        *handlers,
        (evt.EVT_DATA_RECV, lambda event: link.received(len(event.data), most)),
        (evt.EVT_PDU_RECV, lambda event: link.note(event.pdu)),
        (evt.EVT_DIMSE_RECV, lambda _: link.message_ended()),
    ]
    association = _request(link, contexts, watched, negotiation)
    try:
        _require_established(link, association, what)
        yield association
    except BaseException:
        if association.is_established:
            association.abort()
        raise
    finally:
        if association.is_established:
            association.acse_timeout = _RELEASE_SECONDS
            association.release()
        discard_partial_file(association)


def _request(
    link: Link,
    contexts: Sequence[PresentationContext],
    handlers: Sequence[tuple[Any, Callable[..., Any]]],
    negotiation: Sequence[Any],
) -> Association:
    peer = link.peer
    entity = _Entity(ae_title=peer.calling)
    entity.connection_timeout = min(peer.silence_seconds, _CONNECT_SECONDS)
    # The event loop watches: these would end a large file that takes its time.
    entity.acse_timeout = None
    entity.dimse_timeout = None
    entity.network_timeout = None
    watched = [
        (evt.EVT_CONN_OPEN, lambda event: link.opened(event.assoc)),
        (evt.EVT_DATA_SENT, lambda _: link.touch()),
    ]
    begun = time.monotonic()
    link.touch()
    try:
        association = entity.associate(
            peer.host,
            peer.port,
            list(contexts),
            ae_title=peer.ae_title,
            ext_neg=list(negotiation),
            evt_handlers=[*watched, *handlers],
            # Without a name: see `services.modalities.tls`.
            tls_args=None if peer.tls is None else (peer.tls, cast("Any", None)),
        )
    except (OSError, UnicodeError) as exc:
        raise faults.unknown_host(peer.name) from exc
    if link._association is None:  # noqa: SLF001  # this module's own
        fault = None if entity.opened is None else entity.opened.tls_fault
        if isinstance(fault, TimeoutError):
            raise faults.silent(peer.name, entity.connection_timeout)
        if fault is not None:
            raise faults.no_encryption(peer.name, fault)
        waited = time.monotonic() - begun
        if waited >= entity.connection_timeout:
            raise faults.no_connection_in_time(peer.name, entity.connection_timeout)
        raise faults.refused_connection(peer.name)
    return association


def _require_established(link: Link, association: Association, what: str) -> None:
    if association.is_established:
        return
    peer = link.peer
    answer = association.acceptor.primitive
    rejection = link.rejection
    if rejection is not None:
        raise faults.rejected(
            peer.name,
            source=rejection.source or 0,
            diagnostic=rejection.reason_diagnostic or 0,
            calling=peer.calling,
            called=peer.ae_title,
        )
    if answer is not None and answer.result == 0 and not association.accepted_contexts:
        raise faults.unsupported(peer.name, what)
    raise link.fault()


def discard_partial_file(association: Association) -> None:
    """Delete the file of a C-STORE that did not arrive as a whole.

    pynetdicom writes what arrives into a temporary file, and leaves it there when the association
    ends in the middle.
    """
    # Private parts: see tests/test_private_interfaces.py.
    message = association.dimse.message
    file = None if message is None else message._data_set_file  # noqa: SLF001
    if file is not None:
        file.close()
        Path(file.name).unlink(missing_ok=True)


def echo(link: Link) -> None:
    """Ask whether the modality is there (C-ECHO, PS3.4 A); blocks.

    Raises:
        ModalityError: It is not, and why.
    """
    context = PresentationContext()
    context.abstract_syntax = Verification
    context.transfer_syntax = [UID("1.2.840.10008.1.2"), UID("1.2.840.10008.1.2.1")]
    with associated(link, [context], what="C-ECHO") as association:
        status = link.status(association.send_c_echo())
    if status != SUCCESS:
        raise faults.refused(link.peer.name, status)


def is_pending(status: int) -> bool:
    """Return whether more answers follow (PS3.4 C.4)."""
    return status in _PENDING


class Network:
    """Runs associations in a bounded number of threads.

    Args:
        threads: Where those of requests run: 16.
        job_threads: Where those of jobs run; the number of jobs bounds them.
    """

    def __init__(self, threads: ThreadPoolExecutor, job_threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._job_threads = job_threads
        self._free = asyncio.Semaphore(_THREADS)
        self._turns: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(_PER_PEER)
        )

    async def run(
        self, peer: Peer, work: Callable[[Link], _T], *, seconds: float | None = None
    ) -> _T:
        """Do work that has an association in a thread, and never return before it has ended.

        Args:
            peer: The other side.
            work: Blocks; uses the link that it is given.
            seconds: After this time the operation is cancelled at the peer, and after a moment the
                connection is closed; None: it takes as long as the peer gives signs of life.

        Raises:
            ModalityError: The peer did not do it.
            TooManyRequests: Too much waits for this peer.
        """
        async with AsyncExitStack() as turns:
            try:
                async with asyncio.timeout(_TURN_SECONDS):
                    await turns.enter_async_context(self._turns[peer.name])
                    await turns.enter_async_context(self._free)
            except TimeoutError as exc:
                message = "Too many ask other archives now. Try again in a few seconds."
                raise TooManyRequests(message) from exc
            link = Link(peer)
            return await _run(link, work, self._threads, seconds, abort=link.give_up)

    async def run_job(self, link: Link, work: Callable[[Link], _T]) -> _T:
        """Do the same for a job: for as long as the peer gives signs of life.

        A peer that is cancelled is told so (C-CANCEL), and has a moment to stop.

        Raises:
            ModalityError: The peer did not do it.
        """
        loop = asyncio.get_running_loop()

        def stop() -> None:
            seconds = _CANCEL_SECONDS if link.cancel() else 0
            loop.call_later(seconds, link.give_up)

        return await _run(link, work, self._job_threads, None, abort=stop)


async def _run(
    link: Link,
    work: Callable[[Link], _T],
    threads: ThreadPoolExecutor,
    seconds: float | None,
    *,
    abort: Callable[[], None],
) -> _T:
    watching = asyncio.create_task(_watch(link, seconds))
    try:
        return await finish_in_thread(work, link, executor=threads, abort=abort)
    finally:
        await cancel_and_wait(watching)


async def _watch(link: Link, seconds: float | None) -> None:
    """Close the connection of a peer that is silent, or whose time is up."""
    peer = link.peer
    while not link.has_begun:  # noqa: ASYNC110  # a thread begins it
        await asyncio.sleep(_WATCH_SECONDS)
    begun = time.monotonic()
    while True:
        await asyncio.sleep(_WATCH_SECONDS)
        if link.silent_seconds >= peer.silence_seconds + _WATCH_SECONDS:
            link.give_up(faults.silent(peer.name, peer.silence_seconds))
        if seconds is None:
            continue
        passed = time.monotonic() - begun
        if passed >= seconds and not link.is_expired:
            link.expire()
        if passed >= seconds + _CANCEL_SECONDS:
            link.give_up(faults.too_slow(peer.name, seconds))


@asynccontextmanager
async def open_network() -> AsyncIterator[Network]:
    """Open the threads of associations."""
    threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="dicom")
    job_threads = ThreadPoolExecutor(_JOB_THREADS, thread_name_prefix="dicom-jobs")
    try:
        yield Network(threads, job_threads)
    finally:
        for pool in (threads, job_threads):
            await finish_in_thread(partial(pool.shutdown, cancel_futures=True))
