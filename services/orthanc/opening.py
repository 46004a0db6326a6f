"""Orthanc by what is asked of it: files to store, frames, and everything else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from services.orthanc.breaker import CircuitBreaker
from services.orthanc.client import OrthancClient
from services.orthanc.files import OrthancFiles, open_orthanc_files
from services.orthanc.frames import OrthancFrames, open_orthanc_frames
from services.orthanc.kept_connections import KeptConnections
from services.orthanc.transport import open_http_client


@dataclass(frozen=True, slots=True)
class Orthanc:
    """One Orthanc, with one circuit breaker for all ways to it."""

    client: OrthancClient
    files: OrthancFiles
    frames: OrthancFrames


@asynccontextmanager
async def open_orthanc(
    url: str, username: str, password: str, *, frame_seconds: float, frames_at_once: int
) -> AsyncIterator[Orthanc]:
    """Open all ways to Orthanc; it need not answer yet.

    Args:
        url: Base URL.
        username: Its user name, `""` for none.
        password: Its password.
        frame_seconds: Longest wait for a frame, in seconds.
        frames_at_once: Most frames that are asked for at once.
    """
    breaker = CircuitBreaker()
    kept = KeptConnections(url, username, password, timeout_seconds=frame_seconds)
    async with (
        open_http_client(url, username, password) as http,
        open_orthanc_files(url, username, password, breaker=breaker) as files,
        open_orthanc_frames(kept, threads=frames_at_once, breaker=breaker) as frames,
    ):
        yield Orthanc(OrthancClient(http, breaker=breaker), files, frames)
