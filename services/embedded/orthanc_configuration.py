"""The configuration of the embedded Orthanc, as data.

Options: https://orthanc.uclouvain.be/book/users/configuration.html
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.embedded.ports import LOOPBACK

GDCM_TRANSFER_SYNTAXES = (
    "1.2.840.10008.1.2.4.90",  # JPEG 2000, lossless only
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.4.92",  # JPEG 2000 Part 2 multi-component, lossless only
    "1.2.840.10008.1.2.4.93",  # JPEG 2000 Part 2 multi-component
)
"""What Orthanc can't decode by itself. This server decodes pictures without Orthanc; Orthanc needs
GDCM to transcode files for DICOM peers that can't read JPEG 2000. GDCM stops at many damaged files,
so it gets no other kind."""

_SCU_SECONDS = 10
"""Orthanc waits up to twice this time for a modality that hangs."""

_HTTP_THREADS = 64
"""A kept-alive connection holds a thread; more than all our clients open together."""


DEFAULT_AE_TITLE = "ORTHANC"


@dataclass(frozen=True, slots=True)
class DicomServer:
    """Where the embedded Orthanc listens for modalities, and which ones it accepts.

    Attributes:
        port: TCP port, open to the network.
        unknown_may_store: Whether senders that are not declared may store.
        check_host: Whether a declared modality must come from its declared address.
        requires_tls: Whether it takes TLS connections only, of peers with a trusted certificate.
    """

    port: int
    unknown_may_store: bool = False
    check_host: bool = True
    requires_tls: bool = False


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of this server for DICOM over TLS (PS3.15 B.12), in both directions.

    Attributes:
        certificate: Its certificate, with those between it and its authority.
        key: Its private key, without a passphrase.
        authorities: Certificates that are trusted.
    """

    certificate: Path
    key: Path
    authorities: Path


@dataclass(frozen=True, slots=True)
class OrthancOptions:
    """The options of an embedded Orthanc.

    Attributes:
        folder: Holds storage and index.
        http_port: Port of the REST API on the loopback interface.
        username: The only user.
        password: Of that user.
        ae_title: Its AE title.
        dicom: Its DICOM server; None: none.
        tls: For modalities that use TLS; None: there are none.
        plugins: Shared libraries to load.
        lua_scripts: Server-side scripts to load.
        stable_age_seconds: A study is stable when nothing came for so long.
        worklist_folder: Whose `*.wl` files the plugin of the modality worklist serves; None: none.
    """

    folder: Path
    http_port: int
    username: str
    password: str = field(repr=False)
    ae_title: str = DEFAULT_AE_TITLE
    dicom: DicomServer | None = None
    tls: TlsFiles | None = None
    plugins: Sequence[Path] = ()
    lua_scripts: Sequence[Path] = ()
    stable_age_seconds: int = 5
    worklist_folder: Path | None = None


def compose_configuration(options: OrthancOptions) -> dict[str, Any]:
    """Compose Orthanc's configuration file, to be written as JSON."""
    return {
        "Name": "orthanc-graphql",
        "StorageDirectory": str(options.folder / "storage"),
        "IndexDirectory": str(options.folder / "index"),
        "StableAge": options.stable_age_seconds,
        "OverwriteInstances": False,
        "Plugins": [str(path) for path in options.plugins],
        "LuaScripts": [str(path) for path in options.lua_scripts],
        "DicomWeb": {"Enable": True},
        "Gdcm": {"Enable": True, "RestrictTransferSyntaxes": list(GDCM_TRANSFER_SYNTAXES)},
        **_http_options(options),
        "Worklists": _worklist_options(options.worklist_folder),
        **_dicom_options(options.ae_title, options.dicom),
        **_tls_options(options.tls),
        **_job_options(),
        **_hardening(),
    }


def _http_options(options: OrthancOptions) -> dict[str, Any]:
    return {
        "HttpPort": options.http_port,
        # Releases before 1.12.10 do not know this option: they listen everywhere and refuse
        # what is not from this machine (RemoteAccessAllowed).
        "HttpBindAddresses": [LOOPBACK],
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {options.username: options.password},
        "HttpCompressionEnabled": False,
        "HttpThreadsCount": _HTTP_THREADS,
        # Together: a small answer takes 0.6 ms, 1.1 ms without kept connections, and 44 ms where
        # the kernel waits for more bytes on a kept one (Nagle's algorithm).
        "KeepAlive": True,
        "TcpNoDelay": True,
    }


def _dicom_options(ae_title: str, server: DicomServer | None) -> dict[str, Any]:
    common = {
        "DicomAet": ae_title,
        # With the default, Latin1, Orthanc drops what it can't write from names in queries, answers
        # and worklists.
        "DefaultEncoding": "Utf8",
        # Otherwise a restart of Orthanc would forget its modalities.
        "DicomModalitiesInDatabase": True,
        "DicomScuTimeout": _SCU_SECONDS,
        "StorageCommitmentReportsSize": 1000,
    }
    if server is None:
        return {**common, "DicomServerEnabled": False}
    return {
        **common,
        "DicomServerEnabled": True,
        "DicomPort": server.port,
        "DicomAlwaysAllowStore": server.unknown_may_store,
        "DicomCheckModalityHost": server.check_host,
        "DicomTlsEnabled": server.requires_tls,
    }


def _tls_options(files: TlsFiles | None) -> dict[str, Any]:
    if files is None:
        return {}
    return {
        "DicomTlsCertificate": str(files.certificate.absolute()),
        "DicomTlsPrivateKey": str(files.key.absolute()),
        "DicomTlsTrustedCertificates": str(files.authorities.absolute()),
        "DicomTlsRemoteCertificateRequired": True,
    }


def _job_options() -> dict[str, Any]:
    return {
        # Two jobs that wait for silent peers would otherwise keep all others waiting.
        "ConcurrentJobs": 8,
        # With the default, 10, the outcome of a job may be gone before it is read.
        "JobsHistorySize": 1000,
        "MediaArchiveSize": 20,
    }


def _worklist_options(folder: Path | None) -> dict[str, Any]:
    if folder is None:
        return {"Enable": False}
    return {
        "Enable": True,
        "Database": str(folder),
        "FilterIssuerAet": False,
        "LimitAnswers": 0,
        # Of the plugin of 2025: entries are in MongoDB, and their status is decided here.
        "SaveInOrthancDatabase": False,
        "DeleteWorklistsOnStableStudy": False,
    }


def _hardening() -> dict[str, Any]:
    return {
        "ExecuteLuaEnabled": False,
        "RestApiWriteToFileSystemEnabled": False,
        "WebDavEnabled": False,
        "DeidentifyLogs": True,
    }
