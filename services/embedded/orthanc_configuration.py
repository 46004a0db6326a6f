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

_HTTP_THREADS = 64
"""A kept-alive connection holds a thread; more than all our clients open together."""


@dataclass(frozen=True, slots=True)
class OrthancOptions:
    """What differs from one embedded Orthanc to the next.

    Attributes:
        folder: Holds storage and index.
        http_port: Port of the REST API on the loopback interface.
        username: The only user.
        password: Of that user.
        dicom_port: Port for C-STORE and the other DIMSE services; None: no DICOM server.
        plugins: Shared libraries to load.
        lua_scripts: Server-side scripts to load.
        stable_age_seconds: A study is stable when nothing came for so long.
        worklist_folder: Whose `*.wl` files the plugin of the modality worklist serves; None: none.
    """

    folder: Path
    http_port: int
    username: str
    password: str = field(repr=False)
    dicom_port: int | None = None
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
        "DefaultEncoding": "Utf8",
        "StableAge": options.stable_age_seconds,
        "OverwriteInstances": False,
        "Plugins": [str(path) for path in options.plugins],
        "LuaScripts": [str(path) for path in options.lua_scripts],
        "DicomWeb": {"Enable": True},
        "Gdcm": {"Enable": True, "RestrictTransferSyntaxes": list(GDCM_TRANSFER_SYNTAXES)},
        **_http_options(options),
        "Worklists": _worklist_options(options.worklist_folder),
        **_dicom_options(options.dicom_port),
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


def _dicom_options(dicom_port: int | None) -> dict[str, Any]:
    if dicom_port is None:
        return {"DicomServerEnabled": False}
    return {"DicomServerEnabled": True, "DicomPort": dicom_port}


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
