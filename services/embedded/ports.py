"""TCP ports of the children on the loopback interface."""

import secrets
import socket
from pathlib import Path

from services.files import write_private

LOOPBACK = "127.0.0.1"

_PORTS = range(20_000, 32_768)
"""Below the ports that Linux gives to outgoing connections (from 32768). A client that knocks at a
dead child's port could otherwise be given that port as its own, connect to itself and keep the
child from coming back."""


def keep_port(path: Path) -> int:
    """Choose a port and write it down, so that a store has the same one at its next start.

    Args:
        path: A file that holds the port of the last time, or nothing yet.

    Returns:
        The port of the last time when it is free, else another free one.
    """
    port = _read_port(path)
    if port is None or not is_free(port):
        port = find_free_port()
        write_private(path, str(port))
    return port


def find_free_port() -> int:
    """Find a free port.

    Raises:
        OSError: All are taken.
    """
    for port in secrets.SystemRandom().sample(_PORTS, len(_PORTS)):
        if is_free(port):
            return port
    raise OSError("No free TCP port on the loopback interface")


def is_free(port: int) -> bool:
    """Return whether a server could listen on a port of the loopback interface now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as candidate:
        # As the children do it: connections of the last run that linger are no hindrance.
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _read_port(path: Path) -> int | None:
    try:
        port = int(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return port if port in _PORTS else None
