"""How the server faces the outside: credentials, addresses, keys of URLs."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from urllib.parse import urlsplit

import httpx
from cryptography import x509

from models.token import TokenDocument
from services.auth.oidc import KeysUnavailable, OidcRules, OidcVerifier
from services.doctor.findings import Finding, ok, problem, warning
from services.embedded.orthanc_configuration import TlsFiles
from services.errors import Error
from services.frames.signing import FrameUrlKeys
from services.modalities.tls import client_context

_CREDENTIALS = "Credentials"
_CERTIFICATE_AHEAD = timedelta(days=30)
"""Time to get a new certificate."""

_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


async def examine_credentials(
    tokens: Sequence[TokenDocument], *, oidc: OidcRules | None, now: datetime
) -> list[Finding]:
    """Check the tokens and the OpenID provider.

    Args:
        tokens: All tokens.
        oidc: Rules of the provider, None for none.
        now: The time, with time zone.
    """
    findings = [judge_tokens(tokens, now)] if tokens else []
    if oidc is not None:
        findings.append(await _examine_provider(oidc))
    if not findings:
        message = (
            "none: the server will listen on this machine only. Make a token with: "
            "orthanc-graphql token create --role viewer --name NAME"
        )
        findings.append(ok(_CREDENTIALS, message))
    return findings


def judge_tokens(tokens: Sequence[TokenDocument], now: datetime) -> Finding:
    """Judge the tokens; revoked ones are not counted."""
    present = [token for token in tokens if token.revoked_at is None]
    valid = sum(token.is_valid_at(now) for token in present)
    shown = f"tokens: {valid} valid, {len(present) - valid} expired"
    if not valid:
        advice = (
            "no client can authenticate with one. Create one with: "
            "orthanc-graphql token create --role viewer --name NAME"
        )
        return warning(_CREDENTIALS, f"{shown}: {advice}")
    return ok(_CREDENTIALS, shown)


def examine_public_url(public_url: str | None, *, has_credentials: bool) -> Finding:
    """Check PUBLIC_URL.

    Args:
        public_url: The setting.
        has_credentials: Whether clients have to authenticate.
    """
    part = "PUBLIC_URL"
    if public_url is None:
        return ok(part, "not set: URLs of frames take the host that the query came to")
    parsed = urlsplit(public_url)
    if parsed.hostname in _THIS_MACHINE:
        return ok(part, public_url)
    if not has_credentials:
        message = (
            f"{public_url} is another name than this machine's, and no credentials are configured: "
            "everybody who reaches it can read and delete all patient data. Make a token with: "
            "orthanc-graphql token create"
        )
        return problem(part, message)
    if parsed.scheme != "https":
        message = f"{public_url}: pictures and tokens travel unencrypted. Use https."
        return warning(part, message)
    return ok(part, public_url)


def examine_frame_url_keys(keys: str | None) -> Finding:
    """Check FRAME_URL_KEYS.

    Args:
        keys: The setting; None when the key is generated into the data directory.
    """
    part = "FRAME_URL_KEYS"
    if keys is None:
        return ok(part, "not set: a key is kept in the data directory")
    try:
        FrameUrlKeys.parse(keys)
    except Error as exc:
        return problem(part, exc.message)
    return ok(part, "usable")


async def _examine_provider(rules: OidcRules) -> Finding:
    part = "OpenID provider"
    async with httpx.AsyncClient(follow_redirects=False) as http:
        try:
            count = await OidcVerifier(http, rules).fetch_keys()
        except KeysUnavailable as exc:
            message = (
                f"its keys can't be fetched: {exc}. Check OIDC_ISSUER, OIDC_JWKS_URL and the "
                "network; until then none of its tokens is accepted."
            )
            return problem(part, message)
    return ok(part, f"{rules.issuer}, keys: {count}")


def examine_dicom_tls(files: TlsFiles, now: datetime) -> Finding:
    """Check the certificate of DICOM over TLS. Blocks.

    Args:
        files: DICOM_TLS_CERTIFICATE, DICOM_TLS_KEY and DICOM_TLS_CA.
        now: The time, with time zone.
    """
    part = "DICOM over TLS"
    try:
        client_context(files)
    except Error as exc:
        return problem(part, exc.message)
    # The first one is that of this server, those of authorities follow.
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    ends = certificate.not_valid_after_utc
    how = "Get a new one, and restart the server"
    if ends <= now:
        return problem(part, f"{files.certificate} expired on {ends:%Y-%m-%d}. {how}.")
    if ends <= now + _CERTIFICATE_AHEAD:
        return warning(part, f"{files.certificate} expires on {ends:%Y-%m-%d}. {how}.")
    return ok(part, f"the certificate is valid until {ends:%Y-%m-%d}")
