"""TLS of associations (PS3.15 B.12): both sides show a certificate that the other one trusts.

Names in a certificate are not compared with the host: in the field they name a device and not an
address (IHE ITI-19, as Orthanc and DCMTK do). What is trusted decides, so DICOM_TLS_CA holds a
certification authority of DICOM applications, or the certificates of the peers themselves.
"""

import socket
import ssl

from services.embedded.orthanc_configuration import TlsFiles
from services.errors import Error


class TlsFilesUnusable(Error):
    """The server can't start with these certificates."""

    code = "TLS_FILES_UNUSABLE"


class TlsSocket(ssl.SSLSocket):
    """An encrypted connection that keeps why it was not made.

    Attributes:
        fault: Of the handshake; None while there is none.
    """

    fault: OSError | None = None

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002  # of `ssl`
        """Do the handshake, and keep its fault, which pynetdicom only logs."""
        try:
            super().do_handshake(block)
        except OSError as exc:
            self.fault = exc
            raise

    def shutdown(self, how: int) -> None:
        """Shut down the connection alone.

        `ssl` would forget first that it is encrypted: a thread that writes at this moment would
        send in the clear.
        """
        socket.socket.shutdown(self, how)


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Make the context of connections to modalities: TLS 1.2 and 1.3. Blocks: it reads files.

    Raises:
        TlsFilesUnusable: A file can't be read or is none of these.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # The certificate of a peer itself may be what is trusted.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.sslsocket_class = TlsSocket
    try:
        # A key with a passphrase would ask for it on the terminal.
        context.load_cert_chain(files.certificate, files.key, password=lambda: b"")
    except OSError as exc:
        raise TlsFilesUnusable(
            "DICOM_TLS_CERTIFICATE and DICOM_TLS_KEY: these must be PEM files that belong together "
            f"and that this server may read, the key without a passphrase ({_reason(exc)})."
        ) from exc
    try:
        context.load_verify_locations(files.authorities)
    except OSError as exc:
        raise TlsFilesUnusable(
            "DICOM_TLS_CA: this must be a PEM file of the certificates that are trusted "
            f"({_reason(exc)})."
        ) from exc
    return context


def _reason(exc: OSError) -> str:
    return exc.strerror or str(exc)
