"""Peers that refuse, reject, abort, hang and talk nonsense: each has its error, in time."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial

import pytest
from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.acse import ACSE
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at run time
    CTImageStorage,
    Verification,
)

from services.embedded.ports import find_free_port
from services.errors import Error, ModalityError
from services.modalities import association
from services.modalities.association import Link, Network, associated, echo, open_network
from services.modalities.query import STUDIES, RemoteCriteria, context_of, find, study_keys
from tests.dicom_peers import peer_at, running_peer, silent_peer


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    async with open_network() as opened:
        yield opened


async def failure(network: Network, port: int, **more: object) -> Error:
    with pytest.raises(Error) as caught:
        await network.run(peer_at(port, **more), echo)  # type: ignore[arg-type]
    return caught.value


async def test_an_echo_is_answered(network: Network) -> None:
    with running_peer([Verification]) as port:
        await network.run(peer_at(port), echo)


async def test_nothing_listens(network: Network) -> None:
    error = await failure(network, find_free_port())
    assert error.code == "MODALITY_UNREACHABLE"
    assert error.message == (
        "pacs can't be reached: nothing accepts connections there. Check its host and port, and "
        "that its DICOM service runs."
    )


async def test_an_ae_title_is_not_known(network: Network) -> None:
    with running_peer([Verification], requires_calling=["OTHER"]) as port:
        error = await failure(network, port)
    assert error.code == "MODALITY_REJECTED"
    assert "does not know the AE title ORTHANC" in error.message
    with running_peer([Verification], requires_called=True) as port:
        error = await failure(network, port, ae_title="WRONG")
    assert error.code == "MODALITY_REJECTED"
    assert "is not called WRONG" in error.message


async def test_a_rejection_that_comes_at_once_is_a_rejection(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pynetdicom takes a connection for failed that the peer has closed before it looks."""
    send = ACSE.send_request

    def send_and_wait(self: ACSE) -> None:
        send(self)
        time.sleep(0.2)

    monkeypatch.setattr(ACSE, "send_request", send_and_wait)
    with running_peer([Verification], requires_calling=["OTHER"]) as port:
        error = await failure(network, port)
    assert error.code == "MODALITY_REJECTED"
    assert "does not know the AE title ORTHANC" in error.message


async def test_the_service_is_not_offered(network: Network) -> None:
    with running_peer([CTImageStorage]) as port:
        error = await failure(network, port)
    assert (error.code, error.message) == (
        "MODALITY_UNSUPPORTED",
        "pacs does not offer C-ECHO. Ask its administrator for it.",
    )


async def test_a_status_of_failure_is_told(network: Network) -> None:
    with running_peer([Verification], [(evt.EVT_C_ECHO, lambda _: 0x0122)]) as port:
        error = await failure(network, port)
    assert isinstance(error, ModalityError)
    assert (error.code, error.dimse_status) == ("MODALITY_REFUSED", "0122")


async def test_no_pdu_is_read_that_is_longer_than_any(network: Network) -> None:
    """A head that announces 4 GiB: its bytes would be kept in memory as long as they come."""
    async with silent_peer(b"\x02\x00\xff\xff\xff\xff" + bytes(100)) as peer:
        error = await failure(network, peer.port, silence_seconds=600.0)
    assert error.code == "MODALITY_UNREACHABLE"


async def test_an_answer_without_end_is_left(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(association, "_MESSAGE_BYTES_MAX", 100_000)
    large = Dataset()
    large.QueryRetrieveLevel = "STUDY"
    large.TextValue = "x" * 200_000
    keys = study_keys(RemoteCriteria(patient_id="P1"))
    work = partial(find, model=STUDIES, keys=keys, limit=10)
    handlers = [(evt.EVT_C_FIND, lambda _: [(0xFF00, large)])]
    with (
        running_peer([STUDIES], handlers) as port,
        pytest.raises(ModalityError, match="more than 1 MiB in one message"),
    ):
        await network.run(peer_at(port), work)


async def test_no_more_is_read_from_a_peer_than_is_used(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(association, "_MESSAGES_WAITING", 4)
    answer = Dataset()
    answer.QueryRetrieveLevel = "STUDY"
    answer.StudyInstanceUID = "1.2.3"

    def read_late(link: Link) -> list[int]:
        with associated(link, [context_of(STUDIES)], what="C-FIND") as opened:
            answers = opened.send_c_find(answer, query_model=STUDIES)
            waiting = opened.dimse.msg_queue
            while waiting.qsize() < 4:
                time.sleep(0.01)
            time.sleep(0.2)
            return [waiting.qsize(), sum(1 for _ in answers)]

    with running_peer([STUDIES], [(evt.EVT_C_FIND, lambda _: [(0xFF00, answer)] * 200)]) as port:
        assert await network.run(peer_at(port), read_late) == [4, 201]


@pytest.mark.parametrize(
    "said",
    [b"", b"\x02\x00\x00\x00", b"\x02\x00\x00\x00\x10\x00half of an acceptance"],
    ids=["nothing", "half a head", "half a body"],
)
async def test_a_peer_that_hangs_is_given_up(network: Network, said: bytes) -> None:
    async with silent_peer(said) as peer:
        begun = time.monotonic()
        error = await failure(network, peer.port, silence_seconds=0.5)
        assert time.monotonic() - begun < 10
    assert error.code == "MODALITY_TIMED_OUT"
    assert "was silent for 0.5 s" in error.message


async def test_a_peer_that_hangs_in_an_answer_is_given_up(network: Network) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang(_: evt.Event) -> int:
        asyncio.run_coroutine_threadsafe(ended.wait(), loop).result()
        return 0

    with running_peer([Verification], [(evt.EVT_C_ECHO, hang)]) as port:
        error = await failure(network, port, silence_seconds=0.5)
        ended.set()
    assert error.code == "MODALITY_TIMED_OUT"


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-OpenSSH_9.2\r\n"])
async def test_a_peer_that_closes_is_unreachable(network: Network, said: bytes) -> None:
    async with silent_peer(said, closes=True) as peer:
        error = await failure(network, peer.port)
    assert error.code == "MODALITY_UNREACHABLE"


async def test_a_peer_that_aborts_is_unreachable(network: Network) -> None:
    def abort(event: evt.Event) -> int:
        event.assoc.abort()
        return 0

    with running_peer([Verification], [(evt.EVT_C_ECHO, abort)]) as port:
        error = await failure(network, port)
    assert error.code == "MODALITY_UNREACHABLE"
    assert "closed the connection" in error.message


async def test_an_unknown_host_is_told(network: Network) -> None:
    with pytest.raises(ModalityError) as caught:
        await network.run(replace(peer_at(1), host="no-such-host.invalid"), echo)
    assert caught.value.code == "MODALITY_UNREACHABLE"
    assert "host name is unknown" in caught.value.message


async def test_a_cancelled_caller_closes_the_connection_at_once(network: Network) -> None:
    async with silent_peer() as peer:
        task = asyncio.create_task(network.run(peer_at(peer.port, silence_seconds=60), echo))
        await asyncio.sleep(0.2)
        begun = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - begun < 40


async def test_hanging_peers_leave_threads_for_others(network: Network) -> None:
    async with silent_peer() as peer:
        hanging = [
            asyncio.create_task(network.run(peer_at(peer.port, silence_seconds=1), echo))
            for _ in range(8)
        ]
        with running_peer([Verification]) as port:
            await network.run(replace(peer_at(port), name="other"), echo)
            # They have four threads, and two turns of a second each.
            assert not all(task.done() for task in hanging)
        outcomes = await asyncio.gather(*hanging, return_exceptions=True)
    assert {getattr(one, "code", "") for one in outcomes} == {"MODALITY_TIMED_OUT"}
