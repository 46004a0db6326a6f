"""The files of `deploy/`, changed as far as a test needs: addresses and certificates."""

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

DEPLOY = Path(__file__).parents[1] / "deploy"

_FIRST_PROCESSES = (8001, 8002)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate for this machine, signed by its own key.

    Attributes:
        chain: PEM file of the certificate.
        key: PEM file of its key.
        both: PEM file of both, as HAProxy reads them.
    """

    chain: Path
    key: Path
    both: Path


def make_certificate(folder: Path) -> Certificate:
    """Write a certificate for 127.0.0.1 and localhost into a folder."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    addresses = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .sign(key, SHA256())
    )
    chain = certificate.public_bytes(Encoding.PEM)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    made = Certificate(folder / "chain.pem", folder / "key.pem", folder / "both.pem")
    for path, content in ((made.chain, chain), (made.key, secret), (made.both, chain + secret)):
        path.write_bytes(content)
    return made


def nginx_configuration(
    folder: Path, certificate: Certificate, *, port: int, processes: Sequence[int]
) -> Path:
    """Write a whole configuration of nginx around the site, with all its files in the folder."""
    site = _replaced(
        (DEPLOY / "nginx.conf").read_text(encoding="utf-8"),
        ("listen 443 ", f"listen 127.0.0.1:{port} "),
        ("/etc/ssl/orthanc-graphql/fullchain.pem", str(certificate.chain)),
        ("/etc/ssl/orthanc-graphql/privkey.pem", str(certificate.key)),
    )
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    return _write(
        folder / "nginx.conf",
        f"pid {folder}/nginx.pid;\nerror_log stderr warn;\ndaemon off;\nmaster_process off;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{temporary}{_on_processes(site, processes)}}}\n",
    )


def haproxy_configuration(
    folder: Path, certificate: Certificate, *, port: int, processes: Sequence[int]
) -> Path:
    """Write the configuration of HAProxy."""
    text = _replaced(
        (DEPLOY / "haproxy.cfg").read_text(encoding="utf-8"),
        ("bind :443 ", f"bind 127.0.0.1:{port} "),
        ("/etc/haproxy/certs/orthanc-graphql.pem", str(certificate.both)),
    )
    return _write(folder / "haproxy.cfg", _on_processes(text, processes))


def caddy_configuration(
    folder: Path, certificate: Certificate, *, port: int, processes: Sequence[int]
) -> Path:
    """Write the configuration of Caddy, which gets its certificate from a file here."""
    options = "admin off\n\tauto_https disable_redirects"
    site = f"https://127.0.0.1:{port} {{\n\ttls {certificate.chain} {certificate.key}\n"
    text = _replaced(
        (DEPLOY / "Caddyfile").read_text(encoding="utf-8"),
        ("\npacs.example.org {\n", f"\n{{\n\t{options}\n}}\n\n{site}"),
    )
    return _write(folder / "Caddyfile", _on_processes(text, processes))


def _on_processes(text: str, processes: Sequence[int]) -> str:
    ports = [(f"127.0.0.1:{a}", f"127.0.0.1:{b}") for a, b in zip(_FIRST_PROCESSES, processes)]  # noqa: B905  # as many as there are
    return _replaced(text, *ports)


def _replaced(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path
