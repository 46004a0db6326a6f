"""Why a modality did not do what it was asked for, in sentences that say what to look at.

Messages hold no address: the name of the modality says which one it is.
"""

import ssl
from enum import IntEnum

from services.errors import (
    ModalityError,
    ModalityRefused,
    ModalityRejected,
    ModalityTimedOut,
    ModalityUnreachable,
    ModalityUnsupported,
)


class Rejection(IntEnum):
    """Reasons of a rejected association, by source and diagnostic (PS3.8 table 9-21)."""

    CALLING_AE_TITLE = 0x0103
    CALLED_AE_TITLE = 0x0107
    CONGESTION = 0x0301
    LIMIT = 0x0302


def refused_connection(name: str) -> ModalityUnreachable:
    """Nothing listens at its address."""
    return ModalityUnreachable(
        f"{name} can't be reached: nothing accepts connections there. Check its host and port, and "
        "that its DICOM service runs."
    )


def unknown_host(name: str) -> ModalityUnreachable:
    """Its host name has no address."""
    return ModalityUnreachable(
        f"{name} can't be reached: its host name is unknown. Check its spelling, and the name "
        "servers of this machine."
    )


NO_CERTIFICATES = (
    "This server has no certificates: set DICOM_TLS_CERTIFICATE, DICOM_TLS_KEY and DICOM_TLS_CA."
)


def closed(name: str, *, is_encrypted: bool = False) -> ModalityUnreachable:
    """It closed the connection, or aborted the association.

    With TLS 1.3 a peer that does not trust the certificate of this server does the same.
    """
    check = (
        "that it trusts the certificate of this server (DICOM_TLS_CERTIFICATE)."
        if is_encrypted
        else "that its port is one of DICOM, and without TLS unless it is declared with `useTls`."
    )
    return ModalityUnreachable(
        f"{name} closed the connection before it had answered. Look at its log, and check {check}"
    )


def no_encryption(name: str, fault: OSError) -> ModalityError:
    """The two sides did not agree on TLS."""
    if not isinstance(fault, ssl.SSLError) or isinstance(fault, ssl.SSLEOFError):
        return ModalityUnreachable(
            f"{name} closed the connection instead of beginning TLS. Look at its log, and check "
            "that it uses TLS on this port, or declare it without `useTls`."
        )
    if isinstance(fault, ssl.SSLCertVerificationError):
        return ModalityRejected(
            f"The certificate of {name} is not trusted: {fault.verify_message}. Check its "
            "certificate, and add the one of its authority to DICOM_TLS_CA."
        )
    if "ALERT" in (fault.reason or ""):
        return ModalityRejected(
            f"{name} refused the TLS connection ({_reason(fault)}). Check that it trusts the "
            "certificate of this server (DICOM_TLS_CERTIFICATE), and speaks TLS 1.2 or 1.3."
        )
    return ModalityRejected(
        f"{name} does not speak TLS 1.2 or 1.3 on this port ({_reason(fault)}). Check its port, or "
        "declare it without `useTls`."
    )


def _reason(fault: ssl.SSLError) -> str:
    return (fault.reason or "no handshake").replace("_", " ").lower()


def no_connection_in_time(name: str, seconds: float) -> ModalityTimedOut:
    """It accepts no connection, and refuses none."""
    return ModalityTimedOut(
        f"{name} accepted no connection within {seconds:g} s. Check its host and port, and the "
        "firewalls between it and this server."
    )


def silent(name: str, seconds: float) -> ModalityTimedOut:
    """It accepted the connection and says nothing."""
    return ModalityTimedOut(
        f"{name} was silent for {seconds:g} s and was given up. It may be overloaded, or need a "
        "longer `timeoutSeconds`."
    )


def too_slow(name: str, seconds: float) -> ModalityTimedOut:
    """Nothing came within the time of the whole query."""
    return ModalityTimedOut(
        f"{name} answered nothing within {seconds:g} s (MODALITY_SECONDS). Ask for less, or try "
        "again later."
    )


def too_large(name: str, most: int) -> ModalityError:
    """It sent a message that is larger than any answer, or a file that is larger than an upload."""
    mebibytes = max(1, most >> 20)
    return ModalityError(
        f"{name} sent more than {mebibytes} MiB in one message and was left. Look at its log, and "
        "at UPLOAD_MAX_BYTES when its files are that large."
    )


def too_many(name: str, count: int) -> ModalityError:
    """It lists more than is taken, so what is missing can't be known."""
    return ModalityError(f"{name} lists more than {count:,} objects of one kind in one study.")


def rejected(
    name: str, *, source: int, diagnostic: int, calling: str, called: str
) -> ModalityRejected:
    """Describe a rejected association.

    Args:
        name: Of the modality.
        source: Of the rejection (PS3.8 9.3.4).
        diagnostic: Its reason.
        calling: AE title of this server.
        called: AE title of the modality.
    """
    reason = source << 8 | diagnostic
    if reason == Rejection.CALLING_AE_TITLE:
        said = (
            f"{name} does not know the AE title {calling}. Enter {calling} there, with the host "
            "and the DICOM port of this server."
        )
    elif reason == Rejection.CALLED_AE_TITLE:
        said = f"{name} is not called {called}. Check its AE title; upper and lower case matter."
    elif reason in (Rejection.CONGESTION, Rejection.LIMIT):
        busy = ModalityRejected(f"{name} has too many associations now. Try again later.")
        busy.may_pass = True
        return busy
    else:
        said = (
            f"{name} rejected the association and does not say why. Check that {calling} is known "
            f"there, with the host of this server, and that its own AE title is {called}."
        )
    return ModalityRejected(said)


def unsupported(name: str, what: str) -> ModalityUnsupported:
    """It offers no presentation context for a service."""
    return ModalityUnsupported(f"{name} does not offer {what}. Ask its administrator for it.")


def not_allowed(name: str, what: str) -> ModalityUnsupported:
    """It was declared without a service."""
    return ModalityUnsupported(
        f"{name} is declared without {what}. An administrator can allow it: declareModality."
    )


_MEANINGS = {
    0x0106: "a value that it does not understand",
    0x0110: "it could not process the request; its log says why",
    0x0111: "it has an object of this UID and keeps that one, which may differ from this one. "
    "Compare them there; to replace it, delete it there and send this one again",
    0x0112: "it has no such object",
    0x0117: "it takes the UID of the object for invalid",
    0x0118: "it does not know this kind of object",
    0x0122: "it does not take this kind of object",
    0x0124: "it does not allow this. Check the rights of this server's AE title there",
    0x0210: "it takes the request for a repetition",
    0x0211: "it does not know this operation",
    0x0213: "it is out of resources. Try again later",
    0xA700: "it is out of resources. Free space there, or try again later",
    0xA701: "it is out of resources. Try again later",
    0xA702: "it is out of resources. Try again later",
    0xA801: "it does not know the destination. Enter this server's AE title there, with the host "
    "and the DICOM port of this server",
    0xA900: "the data do not belong to what was announced",
    0xB000: "some of it could not be transferred",
    0xB006: "the object lacks attributes that it wants",
    0xB007: "the data do not belong to what was announced",
    0xFE00: "it was cancelled there",
}
_KINDS = {0xA7: 0xA700, 0xA8: 0xA801, 0xA9: 0xA900}
_CANNOT_UNDERSTAND = 0xC000
_OUT_OF_RESOURCES = 0xA7
_PASSING = frozenset({0x0213})


def status_text(status: int) -> str:
    """Write a status (PS3.7 C) as it is shown: four hex digits."""
    return f"{status & 0xFFFF:04X}"


def refused(name: str, status: int) -> ModalityRefused:
    """Describe a status of failure.

    Args:
        name: Of the modality.
        status: Its status (PS3.7 C, PS3.4).
    """
    meaning = _MEANINGS.get(status) or _MEANINGS.get(_KINDS.get(status >> 8, 0))
    if meaning is None and status >= _CANNOT_UNDERSTAND:
        meaning = "it could not process the request; its log says why"
    text = status_text(status)
    said = f"{name} refused with status {text}"
    error = ModalityRefused(f"{said}: {meaning}." if meaning else f"{said}.", dimse_status=text)
    error.may_pass = status in _PASSING or status >> 8 == _OUT_OF_RESOURCES
    return error
