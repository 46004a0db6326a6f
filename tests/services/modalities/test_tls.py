"""Associations over TLS: who is trusted, who is not, and what each is told."""

import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at run time

from services.embedded.orthanc_configuration import TlsFiles
from services.errors import Error
from services.modalities.association import Network, echo, open_network
from services.modalities.tls import TlsFilesUnusable, TlsSocket, client_context
from tests.certificates import Authority, pem, server_context
from tests.dicom_peers import peer_at, running_peer, silent_peer


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.make()


@pytest.fixture
def files(authority: Authority, tmp_path: Path) -> TlsFiles:
    return authority.issue(tmp_path, "ours")


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    async with open_network() as opened:
        yield opened


async def refusal(
    network: Network, port: int, tls: ssl.SSLContext | None, *, silence_seconds: float = 5.0
) -> tuple[str, str]:
    with pytest.raises(Error) as caught:
        await network.run(peer_at(port, tls=tls, silence_seconds=silence_seconds), echo)
    return caught.value.code, caught.value.message


async def test_both_sides_show_a_certificate(
    network: Network, authority: Authority, files: TlsFiles, tmp_path: Path
) -> None:
    theirs = authority.issue(tmp_path, "theirs")
    with running_peer([Verification], tls=server_context(theirs)) as port:
        await network.run(peer_at(port, tls=client_context(files)), echo)
        # What is trusted may be the certificate of the peer itself.
        pinned = client_context(replace(files, authorities=theirs.certificate))
        await network.run(peer_at(port, tls=pinned), echo)
        # One of the same authority is then not enough.
        other = client_context(replace(files, authorities=files.certificate))
        code, message = await refusal(network, port, other)
        assert (code, "The certificate of pacs is not trusted" in message) == (
            "MODALITY_REJECTED",
            True,
        )
        # TLS is refused to nobody else because of that, and needed.
        code, message = await refusal(network, port, None)
        assert code == "MODALITY_UNREACHABLE"
        assert "`useTls`" in message


@pytest.mark.parametrize("is_old", [False, True])
async def test_a_certificate_of_this_server_that_is_not_trusted_there(
    network: Network, authority: Authority, files: TlsFiles, tmp_path: Path, *, is_old: bool
) -> None:
    context = server_context(authority.issue(tmp_path, "theirs"))
    if is_old:
        # TLS 1.2 tells it in the handshake, 1.3 afterwards.
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    (tmp_path / "elsewhere").mkdir()
    stranger = Authority.make().issue(tmp_path / "elsewhere", "stranger")
    mixed = replace(stranger, authorities=files.authorities)
    with running_peer([Verification], tls=context) as port:
        code, message = await refusal(network, port, client_context(mixed))
    assert code == ("MODALITY_REJECTED" if is_old else "MODALITY_UNREACHABLE")
    assert "trusts the certificate of this server" in message


async def test_an_expired_certificate_is_not_trusted(
    network: Network, authority: Authority, files: TlsFiles, tmp_path: Path
) -> None:
    old = authority.issue(tmp_path, "old", valid_days=-1)
    with running_peer([Verification], tls=server_context(old)) as port:
        code, message = await refusal(network, port, client_context(files))
    assert (code, "has expired" in message) == ("MODALITY_REJECTED", True)


async def test_a_peer_without_tls_is_told_apart_from_a_silent_one(
    network: Network, files: TlsFiles
) -> None:
    tls = client_context(files)
    with running_peer([Verification]) as port:
        code, message = await refusal(network, port, tls)
    assert (code, "does not speak TLS" in message) == ("MODALITY_REJECTED", True)
    async with silent_peer(closes=True) as peer:
        code, message = await refusal(network, peer.port, tls)
    assert (code, "uses TLS on this port" in message) == ("MODALITY_UNREACHABLE", True)
    async with silent_peer() as peer:
        code, _ = await refusal(network, peer.port, tls, silence_seconds=0.5)
    assert code == "MODALITY_TIMED_OUT"


def test_files_that_can_t_be_used_say_which(
    authority: Authority, files: TlsFiles, tmp_path: Path
) -> None:
    other = authority.issue(tmp_path, "other")
    locked = tmp_path / "locked.key"
    key = authority.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    locked.write_bytes(key)
    certificate = tmp_path / "authority.crt"
    certificate.write_bytes(pem(authority.certificate))
    unusable = [
        (replace(files, certificate=tmp_path / "none.crt"), "DICOM_TLS_CERTIFICATE"),
        (replace(files, key=other.key), "DICOM_TLS_KEY"),
        (replace(files, certificate=certificate, key=locked), "passphrase"),
        (replace(files, authorities=files.key), "DICOM_TLS_CA"),
    ]
    for wrong, name in unusable:
        with pytest.raises(TlsFilesUnusable) as caught:
            client_context(wrong)
        assert name in caught.value.message


def test_a_connection_that_is_shut_down_is_never_written_to_in_the_clear(
    authority: Authority, files: TlsFiles, tmp_path: Path
) -> None:
    near, far = socket.socketpair()
    theirs = server_context(authority.issue(tmp_path, "theirs"))
    with near, far:
        near.setblocking(False)
        opened = client_context(files).wrap_socket(near, do_handshake_on_connect=False)
        with opened, theirs.wrap_socket(far, server_side=True, do_handshake_on_connect=False):
            assert isinstance(opened, TlsSocket)
            with contextlib.suppress(ssl.SSLWantReadError):
                opened.do_handshake()
            opened.shutdown(socket.SHUT_RD)
            with pytest.raises(OSError):  # noqa: PT011  # of TLS, whichever
                opened.send(b"Doe^Jane")
