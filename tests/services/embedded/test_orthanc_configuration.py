from dataclasses import replace
from pathlib import Path

from services.embedded.orthanc_configuration import (
    DicomServer,
    OrthancOptions,
    TlsFiles,
    compose_configuration,
)

_OPTIONS = OrthancOptions(
    folder=Path("/data/orthanc"),
    http_port=20_000,
    username="user",
    password="canary",
    plugins=[Path("/plugins/libOrthancGdcm.so")],
    lua_scripts=[Path("/scripts/deleted.lua")],
)


def test_the_configuration_is_the_one_that_security_asks_for() -> None:
    assert compose_configuration(_OPTIONS) == {
        "Name": "orthanc-graphql",
        "StorageDirectory": "/data/orthanc/storage",
        "IndexDirectory": "/data/orthanc/index",
        "StableAge": 5,
        "OverwriteInstances": False,
        "Plugins": ["/plugins/libOrthancGdcm.so"],
        "LuaScripts": ["/scripts/deleted.lua"],
        "DicomWeb": {"Enable": True},
        "Gdcm": {
            "Enable": True,
            "RestrictTransferSyntaxes": [
                "1.2.840.10008.1.2.4.90",
                "1.2.840.10008.1.2.4.91",
                "1.2.840.10008.1.2.4.92",
                "1.2.840.10008.1.2.4.93",
            ],
        },
        "HttpPort": 20_000,
        "HttpBindAddresses": ["127.0.0.1"],
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {"user": "canary"},
        "HttpCompressionEnabled": False,
        "HttpThreadsCount": 64,
        "KeepAlive": True,
        "TcpNoDelay": True,
        "Worklists": {"Enable": False},
        "DicomAet": "ORTHANC",
        "DefaultEncoding": "Utf8",
        "DicomModalitiesInDatabase": True,
        "DicomScuTimeout": 10,
        "StorageCommitmentReportsSize": 1000,
        "DicomServerEnabled": False,
        "ConcurrentJobs": 8,
        "JobsHistorySize": 1000,
        "MediaArchiveSize": 20,
        "ExecuteLuaEnabled": False,
        "RestApiWriteToFileSystemEnabled": False,
        "WebDavEnabled": False,
        "DeidentifyLogs": True,
    }


def test_the_dicom_server_lets_declared_modalities_in_only() -> None:
    configuration = compose_configuration(replace(_OPTIONS, dicom=DicomServer(4242)))
    assert configuration["DicomServerEnabled"] is True
    assert configuration["DicomPort"] == 4242
    assert configuration["DicomAlwaysAllowStore"] is False
    assert configuration["DicomCheckModalityHost"] is True


def test_settings_may_let_unknown_senders_in() -> None:
    server = DicomServer(4242, unknown_may_store=True, check_host=False)
    configuration = compose_configuration(replace(_OPTIONS, ae_title="PACS", dicom=server))
    assert configuration["DicomAet"] == "PACS"
    assert configuration["DicomAlwaysAllowStore"] is True
    assert configuration["DicomCheckModalityHost"] is False


def test_connections_are_encrypted_where_there_are_certificates() -> None:
    assert "DicomTlsCertificate" not in compose_configuration(_OPTIONS)
    tls = TlsFiles(Path("/tls/ours.crt"), Path("/tls/ours.key"), Path("/tls/ca.crt"))
    options = replace(_OPTIONS, tls=tls, dicom=DicomServer(4242))
    configuration = compose_configuration(options)
    assert configuration["DicomTlsEnabled"] is False
    assert configuration["DicomTlsCertificate"] == "/tls/ours.crt"
    assert configuration["DicomTlsPrivateKey"] == "/tls/ours.key"
    assert configuration["DicomTlsTrustedCertificates"] == "/tls/ca.crt"
    assert configuration["DicomTlsRemoteCertificateRequired"] is True
    required = replace(options, dicom=DicomServer(4242, requires_tls=True))
    assert compose_configuration(required)["DicomTlsEnabled"] is True


def test_the_worklist_is_served_from_its_folder() -> None:
    options = replace(_OPTIONS, worklist_folder=Path("/data/worklist"))
    assert compose_configuration(options)["Worklists"] == {
        "Enable": True,
        "Database": "/data/worklist",
        "FilterIssuerAet": False,
        "LimitAnswers": 0,
        "SaveInOrthancDatabase": False,
        "DeleteWorklistsOnStableStudy": False,
    }


def test_the_password_is_not_printed_with_the_options() -> None:
    assert "canary" not in repr(_OPTIONS)
