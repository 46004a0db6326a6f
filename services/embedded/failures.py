"""Errors of embedded stores.

    EmbeddedStoreError     EMBEDDED_STORE
    ├── NotInstalled       NOT_INSTALLED        its program is not on this machine
    └── StartFailed        START_FAILED         it stopped or never got ready

The messages are for the person who starts the server.
"""

from services.errors import Error


class EmbeddedStoreError(Error):
    """An embedded store can't be used."""

    code = "EMBEDDED_STORE"


class NotInstalled(EmbeddedStoreError):
    """A program that the embedded stores need is missing or too old."""

    code = "NOT_INSTALLED"


class StartFailed(EmbeddedStoreError):
    """A child stopped while it started, or did not get ready in time."""

    code = "START_FAILED"
