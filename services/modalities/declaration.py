"""What is declared of a modality, checked: Orthanc takes an empty or endless AE title as it is."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from models.modality import DicomService, ModalityDocument, RetrieveMethod
from services.dicom.values import clean_text
from services.errors import InvalidInput

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
"""What Orthanc takes as a name: it answers 400 to others."""

_AE_TITLE = re.compile(r"[\x21-\x5b\x5d-\x7e](?:[\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?")
"""1 to 16 printable ASCII characters without a backslash; blanks at the ends are padding
(PS3.5 6.2, AE)."""

_HOST_NAME = re.compile(
    r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)(?:\.[A-Za-z0-9_-]+)*\.?"
)
_HOST_MAX_CHARACTERS = 253
_PORTS = range(1, 65_536)
_TIMEOUT_SECONDS = range(1, 601)
_DESCRIPTION_MAX_CHARACTERS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """A modality as an administrator declares it.

    Attributes:
        name: Its name here.
        ae_title: Its AE title.
        host: Name or address of its machine.
        port: Its TCP port.
        allows: What it may be asked for, and what it may do here.
        retrieve_method: How studies are fetched from it.
        timeout_seconds: Longest silence.
        description: For people.
        use_tls: Whether connections to it are encrypted.
    """

    name: str
    ae_title: str
    host: str
    port: int
    allows: Collection[DicomService]
    retrieve_method: RetrieveMethod
    timeout_seconds: int
    description: str | None
    use_tls: bool = False


def check_declaration(
    *,
    name: str,
    ae_title: str,
    host: str,
    port: int,
    allows: Collection[DicomService] | None,
    retrieve_method: RetrieveMethod,
    timeout_seconds: int,
    description: str | None,
    use_tls: bool = False,
) -> Declaration:
    """Check what was declared; arguments are the attributes of `Declaration`.

    Args:
        name: Likewise.
        ae_title: Blanks at its ends are padding.
        host: Likewise.
        port: Likewise.
        allows: None: every service.
        retrieve_method: Likewise.
        timeout_seconds: Likewise.
        description: Blank counts as None.
        use_tls: Likewise.

    Raises:
        InvalidInput: Says which argument is wrong, and what is allowed.
    """
    require_name(name)
    ae_title, host = ae_title.strip(" "), host.strip()
    if not _AE_TITLE.fullmatch(ae_title):
        message = "aeTitle: 1 to 16 printable ASCII characters without a backslash."
        raise InvalidInput(message, argument="aeTitle")
    if not _is_host(host):
        message = "host: a host name or an IP address, without scheme and port."
        raise InvalidInput(message, argument="host")
    if port not in _PORTS:
        raise InvalidInput("port: 1 to 65535; DICOM's are 104 and 11112.", argument="port")
    if timeout_seconds not in _TIMEOUT_SECONDS:
        raise InvalidInput("timeoutSeconds: 1 to 600.", argument="timeoutSeconds")
    text = clean_text(description)
    if text is not None and len(text) > _DESCRIPTION_MAX_CHARACTERS:
        message = f"description: at most {_DESCRIPTION_MAX_CHARACTERS} characters."
        raise InvalidInput(message, argument="description")
    return Declaration(
        name=name,
        ae_title=ae_title,
        host=host,
        port=port,
        allows=[one for one in DicomService if allows is None or one in allows],
        retrieve_method=retrieve_method,
        timeout_seconds=timeout_seconds,
        description=text,
        use_tls=use_tls,
    )


def require_name(name: str) -> str:
    """Check the name of a modality.

    Raises:
        InvalidInput: It is none.
    """
    if not _NAME.fullmatch(name):
        message = "name: 1 to 64 letters, digits, `-` and `_`, without accents."
        raise InvalidInput(message, argument="name")
    return name


def is_name(text: str) -> bool:
    """Return whether a text can be the name of a modality."""
    return bool(_NAME.fullmatch(text))


def orthanc_configuration(modality: ModalityDocument, host: str) -> dict[str, Any]:
    """Return a modality as Orthanc's `PUT /modalities/{name}` takes it.

    Args:
        modality: As it is stored.
        host: Its address: Orthanc compares the address of a sender with this text.
    """
    allowed = set(modality.allows)
    return {
        "AET": modality.ae_title,
        "Host": host,
        "Port": modality.port,
        "Timeout": modality.timeout_seconds,
        "UseDicomTls": modality.use_tls,
        "AllowEcho": DicomService.ECHO in allowed,
        "AllowFind": DicomService.FIND in allowed,
        "AllowFindWorklist": DicomService.FIND_WORKLIST in allowed,
        "AllowGet": DicomService.GET in allowed,
        "AllowMove": DicomService.MOVE in allowed,
        "AllowStore": DicomService.STORE in allowed,
        "AllowStorageCommitment": DicomService.STORAGE_COMMITMENT in allowed,
    }


def is_mirrored(wanted: Mapping[str, Any], present: Mapping[str, Any] | None) -> bool:
    """Return whether Orthanc has a modality as it should be.

    Args:
        wanted: As `orthanc_configuration` makes it.
        present: As Orthanc answers it; None when it does not know the modality. It answers storage
            commitment as `AllowNAction`, and releases differ in what else they answer.
    """
    if present is None:
        return False
    shown = {"AllowStorageCommitment": present.get("AllowNAction"), **present}
    return all(shown.get(key, value) in (value, None) for key, value in wanted.items())


def _is_host(text: str) -> bool:
    if len(text) > _HOST_MAX_CHARACTERS:
        return False
    try:
        ip_address(text)
    except ValueError:
        # Four numbers that are no address would be looked up as a name.
        return bool(_HOST_NAME.fullmatch(text)) and not text.replace(".", "").isdigit()
    return True
