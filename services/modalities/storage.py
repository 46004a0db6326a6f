"""Storage of instances at a modality (C-STORE, PS3.4 B): one status for each."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import pydicom
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext

from services.errors import ModalityError, NotFound, OrthancNotFound
from services.modalities import faults
from services.modalities.association import SUCCESS, Link, associated

_CONTEXTS_MAX = 128
"""Of one association (PS3.8 9.3.2.2)."""

_NATIVE = frozenset({str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian)})
"""What every application that stores takes in one of both forms (PS3.5 10.1)."""

_WARNINGS = frozenset({0xB000, 0xB006, 0xB007})
"""Stored all the same (PS3.4 B.2.3). A duplicate (0111, PS3.7 C.5.8) is not: the modality keeps
what it has, which may be the former content, and the former patient, of what was replaced here."""
_OUT_OF_RESOURCES = 0xA7

_REWRITTEN_BYTES_MAX = 256 * 1024 * 1024
"""Of a file that is written in the other native encoding, in memory; Orthanc sends larger ones."""

_QUEUED_PDUS = 64
"""pynetdicom would put a whole file into its queue: this is 1 MB of it."""

_QUEUE_SECONDS = 0.0005


@dataclass(frozen=True, slots=True, kw_only=True)
class SentInstance:
    """An instance that is sent.

    Attributes:
        instance_id: Orthanc's identifier.
        revision: Of the stored file.
        study_id: Orthanc's identifier of its study.
    """

    instance_id: str
    revision: str
    study_id: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str

    @property
    def is_described(self) -> bool:
        """Whether it is known what it is, and how it is encoded."""
        return bool(self.sop_class_uid and self.transfer_syntax_uid)


class Delivery(Enum):
    """What became of an instance."""

    STORED = "stored"
    WARNING = "stored with a warning"
    FAILED = "failed"
    UNSENT = "its encoding is not taken there"


@dataclass(frozen=True, slots=True)
class Delivered:
    """The outcome of one instance; `error` says why it FAILED."""

    instance: SentInstance
    delivery: Delivery
    error: Exception | None = None


Fetch = Callable[[SentInstance], AbstractContextManager[Path]]


def store(
    link: Link,
    instances: Sequence[SentInstance],
    fetch: Fetch,
    report: Callable[[Delivered], None],
) -> None:
    """Store instances in one association; blocks.

    Args:
        link: With whom.
        instances: What is sent, with at most as many encodings as `divided` allows.
        fetch: Fetches the file of an instance for as long as its context is open.
        report: Called with the outcome of each, in their order.

    Raises:
        ModalityError: It can't be reached, has no room, or ended the association: the instances
            without an outcome were not sent, or nothing is known of the first of them.
        OrthancError: A file can't be fetched now.
    """
    with associated(link, _contexts(instances), what="storage of these objects") as association:
        _limit_queue(association)
        for number, instance in enumerate(instances, start=1):
            with ExitStack() as opened:
                try:
                    with link.busy():
                        path = opened.enter_context(fetch(instance))
                except OrthancNotFound:
                    gone = NotFound("It was deleted meanwhile.")
                    report(Delivered(instance, Delivery.FAILED, gone))
                    continue
                report(_deliver(link, association, instance, path, number))


def _deliver(
    link: Link, association: Association, instance: SentInstance, path: Path, number: int
) -> Delivered:
    accepted = {
        str(one.transfer_syntax[0])
        for one in association.accepted_contexts
        if one.abstract_syntax == instance.sop_class_uid
    }
    if not accepted:
        error = faults.refused(link.peer.name, 0x0122)
        return Delivered(instance, Delivery.FAILED, error)
    content: Any = path
    if instance.transfer_syntax_uid not in accepted:
        is_rewritable = instance.transfer_syntax_uid in _NATIVE and not accepted.isdisjoint(_NATIVE)
        if not is_rewritable or path.stat().st_size > _REWRITTEN_BYTES_MAX:
            return Delivered(instance, Delivery.UNSENT)
        # Written in the other native encoding by pynetdicom.
        content = pydicom.dcmread(path)
    try:
        answer = association.send_c_store(content, msg_id=number % 0xFFFF or 1)
    except (ValueError, AttributeError, OSError) as exc:
        detail = f"{type(exc).__name__} in C-STORE"
        unreadable = ModalityError("The stored file can't be read for sending.", detail=detail)
        return Delivered(instance, Delivery.FAILED, unreadable)
    status = link.status(answer)
    if status == SUCCESS:
        return Delivered(instance, Delivery.STORED)
    if status in _WARNINGS:
        return Delivered(instance, Delivery.WARNING)
    error = faults.refused(link.peer.name, status)
    if status >> 8 == _OUT_OF_RESOURCES:
        raise error
    return Delivered(instance, Delivery.FAILED, error)


Pair = tuple[str, str]
"""A SOP class and a transfer syntax."""


def _pairs(instance: SentInstance) -> set[Pair]:
    """Return what is proposed for an instance: its encoding, and those that it may be turned into.

    It is rewritten here, or transcoded by Orthanc.
    """
    syntaxes = {instance.transfer_syntax_uid, *_NATIVE}
    return {(instance.sop_class_uid, syntax) for syntax in syntaxes}


def _contexts(instances: Sequence[SentInstance]) -> list[PresentationContext]:
    return [_context(*pair) for pair in sorted(set().union(*map(_pairs, instances)))]


def _context(sop_class_uid: str, transfer_syntax_uid: str) -> PresentationContext:
    context = PresentationContext()
    context.abstract_syntax = UID(sop_class_uid)
    context.transfer_syntax = [UID(transfer_syntax_uid)]
    return context


def divided(instances: Sequence[SentInstance]) -> Iterator[list[SentInstance]]:
    """Divide instances into parts whose encodings fit into one association, in their order."""
    part: list[SentInstance] = []
    pairs: set[Pair] = set()
    for instance in instances:
        together = pairs | _pairs(instance)
        if part and len(together) > _CONTEXTS_MAX:
            yield part
            part, together = [], _pairs(instance)
        part.append(instance)
        pairs = together
    if part:
        yield part


def _limit_queue(association: Association) -> None:
    """Let a file be read no faster than it is sent.

    pynetdicom reads a file into its queue of messages as fast as it can.
    """
    service = association.dul
    send = service.send_pdu

    def send_later(primitive: Any) -> None:  # noqa: ANN401  # any of pynetdicom's
        if isinstance(primitive, P_DATA):
            while service.to_provider_queue.qsize() >= _QUEUED_PDUS and service.is_alive():
                time.sleep(_QUEUE_SECONDS)
        send(primitive)

    service.send_pdu = send_later  # type: ignore[method-assign]  # see the test of private parts
