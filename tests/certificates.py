"""Certificates for tests: an authority, and what it certifies, as PEM files."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.embedded.orthanc_configuration import TlsFiles


@dataclass(frozen=True, slots=True)
class Authority:
    """A certification authority."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls) -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(_signed("Hospital", key, None, key, valid_days=1), key)

    def issue(self, folder: Path, name: str, *, valid_days: int = 1) -> TlsFiles:
        """Certify a device by its name, as hospitals do, without a host; it trusts this authority.

        Args:
            folder: Where the files go.
            name: Of the device.
            valid_days: Until the certificate expires; negative: it has expired.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        made = _signed(name, key, self.certificate, self.key, valid_days=valid_days)
        files = TlsFiles(folder / f"{name}.crt", folder / f"{name}.key", folder / "ca.crt")
        files.certificate.write_bytes(pem(made))
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        files.authorities.write_bytes(pem(self.certificate))
        return files


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """The side of a peer, which wants a certificate from its clients."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(files.certificate, files.key)
    context.load_verify_locations(files.authorities)
    return context


def _signed(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    signer: ec.EllipticCurvePrivateKey,
    *,
    valid_days: int,
) -> x509.Certificate:
    now = datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(
        subject_name=subject,
        issuer_name=subject if issuer is None else issuer.subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - timedelta(days=2),
        not_valid_after=now + timedelta(days=valid_days),
    )
    constraints = x509.BasicConstraints(ca=issuer is None, path_length=None)
    return builder.add_extension(constraints, critical=True).sign(signer, hashes.SHA256())
