"""The open mode: a server without credentials, for one person on one machine.

Everyone who can reach such a server is its admin. So it does not start if a setting suggests that
others can reach it, or if there were credentials before: losing them must not open a server.
"""

import ipaddress
from collections.abc import Collection
from pathlib import Path
from urllib.parse import urlsplit

from services.errors import Error
from services.files import make_private_folder, write_private

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

MARK_NAME = "had-credentials"


class OpenServerRefused(Error):
    """A server without credentials might be reachable for others."""

    code = "OPEN_SERVER_REFUSED"


def reason_to_stay_closed(
    data_dir: Path,
    *,
    public_url: str | None = None,
    trusted_proxies: Collection[str] = (),
    tokens_file: Path | None = None,
    allowed_origins: Collection[str] | None = None,
) -> str | None:
    """Return why a server with these settings must not run without credentials. Blocks.

    Args:
        data_dir: DATA_DIR, which remembers credentials.
        public_url: PUBLIC_URL.
        trusted_proxies: TRUSTED_PROXIES.
        tokens_file: TOKENS_FILE.
        allowed_origins: CORS_ALLOWED_ORIGINS.

    Returns:
        A clause for an error message; None if it may run without credentials.
    """
    public_host = urlsplit(public_url or "").hostname
    if public_host is not None and public_host not in LOOPBACK_NAMES:
        return f"PUBLIC_URL names another host ({public_host})"
    if trusted_proxies:
        return "TRUSTED_PROXIES is set, so others reach this server through a proxy"
    if tokens_file is not None:
        return f"TOKENS_FILE is set ({tokens_file}), and there are no tokens"
    if "*" in (allowed_origins or ()):
        return (
            "CORS_ALLOWED_ORIGINS is *, so any page in a browser on this machine could use it "
            "(name the origins instead)"
        )
    mark = data_dir / MARK_NAME
    if mark.exists():
        return (
            f"it had credentials before and has lost them (delete the file {mark} if the server "
            "shall be open to everybody on this machine again)"
        )
    return None


def remember_credentials(data_dir: Path) -> None:
    """Record in the data directory that there were credentials. Blocks.

    If the data directory is not writable, only the tokens in MongoDB show it.
    """
    mark = data_dir / MARK_NAME
    if mark.exists():
        return
    try:
        make_private_folder(data_dir)
        write_private(mark, "This server had credentials: without any it does not start.\n")
    except OSError:
        return


def refuse_open_start(closed_because: str | None, *, host: str) -> None:
    """Refuse to start a server without credentials that others might reach.

    Args:
        closed_because: As `reason_to_stay_closed` returns it.
        host: The address to listen on.

    Raises:
        OpenServerRefused: There must be credentials.
    """
    reason = closed_because
    if reason is None and not _is_loopback(host):
        reason = f"it would listen on {host or 'every address'} (or listen on 127.0.0.1)"
    if reason is None:
        return
    raise OpenServerRefused(
        f"Refused to start without credentials: {reason}. Everybody who reaches the server could "
        "read and delete all patient data. Make a token with `orthanc-graphql token create --role "
        "admin --name NAME`, or set OIDC_ISSUER and OIDC_AUDIENCE."
    )


def _is_loopback(host: str) -> bool:
    if host in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
