"""The routes of Orthanc's REST API that this server uses, one method each.

Every identifier is checked for its form before it becomes part of a path; answers are dataclasses
of `services.orthanc.answers`; faults are errors of `services.errors`.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from services.errors import (
    DownloadsBusy,
    OrthancBusy,
    OrthancNotFound,
    OrthancOutcomeUnknown,
    OrthancUnavailable,
)
from services.orthanc.answers import (
    ChangePage,
    CommitmentReport,
    JobInfo,
    SeriesListing,
    Statistics,
    StoredFile,
    StudyListing,
    SystemInfo,
)
from services.orthanc.beginning import FILE_SECONDS
from services.orthanc.capacity import WHOLE_CAPACITY, OrthancCapacity
from services.orthanc.connection_pool import ConnectionPool
from services.orthanc.endpoints import Endpoint, Endpoints
from services.orthanc.files import OrthancFiles, open_orthanc_files
from services.orthanc.frames import OrthancFrames, open_orthanc_frames
from services.orthanc.identifiers import path_of
from services.orthanc.transport import (
    CircuitBreaker,
    observed,
    open_http_client,
    raise_for_status,
    send,
    streamed,
    timeout_of,
    translated_faults,
)

_UID = re.compile(r"[0-9.]{1,64}", re.ASCII)
_JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_LIST_SECONDS = 120
"""Lists of everything are long: 10,000 studies take seconds on a busy Orthanc."""

_BUSY_SECONDS = 0.2
"""Pause before a call is repeated that Orthanc was too busy for."""

_DOWNLOAD_SLOT_SECONDS = 5.0
"""Longest wait for a connection of a download: after it the client is asked to try again later."""


class OrthancClient:
    """Orthanc, as this server uses it.

    Args:
        http: The HTTP client of `open_http_client`.
        downloads: Another one for what is passed on as fast as its reader takes it, so that slow
            readers never take the connections of everything else; None: the same.
        breaker: Refuses calls for a moment while Orthanc is away; None asks every time.
        readers: Other Orthancs with the same content, which answer with files and archives.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        downloads: httpx.AsyncClient | None = None,
        breaker: CircuitBreaker | None = None,
        readers: Sequence[Endpoint["ReadClients"]] = (),
    ) -> None:
        self._main = Endpoint(ReadClients(http, downloads or http), breaker)
        self._http = http
        self._readers = Endpoints(self._main, readers)

    @property
    def is_refusing(self) -> bool:
        """Whether calls are refused because Orthanc did not answer the last ones."""
        breaker = self._main.breaker
        return breaker is not None and breaker.is_open

    async def system(self) -> SystemInfo:
        """`GET /system`: version and identity."""
        return SystemInfo.from_json(await self._get_json("/system"))

    async def plugins(self) -> Sequence[str]:
        """`GET /plugins`: names of the plugins that are loaded."""
        return [str(name) for name in await self._get_json("/plugins")]

    async def statistics(self) -> Statistics:
        """`GET /statistics`: how much is stored."""
        return Statistics.from_json(await self._get_json("/statistics"))

    async def stored_files(self, instance_ids: Sequence[str]) -> list[StoredFile]:
        """`POST /tools/bulk-content`: many instances with their metadata, in one call.

        Instances that are gone are left out.
        """
        answer = await self._send_json(
            "POST",
            "/tools/bulk-content",
            only_reads=True,
            json={"Resources": list(instance_ids), "Level": "Instance", "Metadata": True},
            timeout=timeout_of(_LIST_SECONDS),
        )
        return [StoredFile.from_json(entry) for entry in answer]

    async def existing_studies(self, study_ids: Sequence[str]) -> set[str]:
        """`POST /tools/bulk-content`: which of these studies are stored, in one call."""
        answer = await self._send_json(
            "POST",
            "/tools/bulk-content",
            only_reads=True,
            json={"Resources": list(study_ids), "Level": "Study", "Metadata": False},
            timeout=timeout_of(_LIST_SECONDS),
        )
        return {str(entry["ID"]) for entry in answer}

    async def dicom_md5(self, instance_id: str) -> str:
        """`GET /instances/{id}/attachments/dicom/md5`: MD5 of the stored file, 32 hex digits."""
        path = path_of("instances", instance_id, "attachments/dicom/md5")
        return (await self._get(path)).text.strip().lower()

    @asynccontextmanager
    async def instance_file(self, instance_id: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """`GET /instances/{id}/file`: the stored DICOM file, streamed; leaving early stops it."""
        path = path_of("instances", instance_id, "file")
        async with self._stream(path, instance_id, lambda clients: clients.http) as response:
            yield response.aiter_bytes()

    @asynccontextmanager
    async def study_archive(self, study_id: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """`GET /studies/{id}/archive`: a ZIP of the study, streamed.

        Raises:
            DownloadsBusy: Too many archives are being read.
            OrthancNotFound: There is no such study.
        """
        path = path_of("studies", study_id, "archive")
        async with self._download(path, study_id) as response:
            yield response.aiter_bytes()

    @asynccontextmanager
    async def series_archive(self, series_id: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """`GET /series/{id}/archive`: a ZIP of the series, streamed; errors: `study_archive`."""
        path = path_of("series", series_id, "archive")
        async with self._download(path, series_id) as response:
            yield response.aiter_bytes()

    @asynccontextmanager
    async def download(self, instance_id: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """`GET /instances/{id}/file` for a reader outside, who may be slow.

        `instance_file` is for this server, which takes what comes at once.

        Raises:
            DownloadsBusy: Too many archives and files are being read.
            OrthancNotFound: There is no such instance.
        """
        path = path_of("instances", instance_id, "file")
        async with self._download(path, instance_id) as response:
            yield response.aiter_bytes()

    @asynccontextmanager
    async def _download(self, path: str, key: str) -> AsyncIterator[httpx.Response]:
        limits = timeout_of(_LIST_SECONDS, pool_seconds=_DOWNLOAD_SLOT_SECONDS)
        try:
            async with self._stream(
                path, key, lambda clients: clients.downloads, limits=limits
            ) as response:
                yield response
        except OrthancUnavailable as exc:
            if isinstance(exc.__cause__, httpx.PoolTimeout):
                raise DownloadsBusy(detail=exc.detail) from exc
            raise

    @asynccontextmanager
    async def _stream(
        self,
        path: str,
        key: str,
        choose: Callable[["ReadClients"], httpx.AsyncClient],
        *,
        limits: httpx.Timeout | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """GET a body that is read while it arrives, from the first Orthanc that has it."""
        opened: Endpoint[ReadClients] | None = None
        fault: OrthancUnavailable | None = None
        try:
            async with AsyncExitStack() as stack:
                for endpoint in self._readers.ordered(key):
                    body = streamed(choose(endpoint.connection), path, limits=limits)
                    try:
                        with endpoint.guarded():
                            response = await stack.enter_async_context(body)
                    except (OrthancUnavailable, OrthancNotFound) as exc:
                        if not self._readers.may_ask_another(endpoint, exc):
                            raise
                        fault = exc if isinstance(exc, OrthancUnavailable) else fault
                    else:
                        opened = endpoint
                        break
                if opened is None:
                    raise fault or OrthancUnavailable
                yield response
        except OrthancUnavailable as exc:
            if opened is not None:
                opened.record(exc)
            raise

    async def changes(self, since: int, limit: int) -> ChangePage:
        """`GET /changes`: what happened after a sequence number; deletions are not among them."""
        return ChangePage.from_json(
            await self._get_json(f"/changes?since={int(since)}&limit={int(limit)}")
        )

    async def newest_change(self) -> ChangePage:
        """`GET /changes?last`: the newest change that is still in the feed, or an empty page."""
        return ChangePage.from_json(await self._get_json("/changes?last"))

    async def series_study(self, series_id: str) -> StudyListing:
        """`GET /series/{id}/study`: the study of a series.

        Raises:
            OrthancNotFound: There is no such series.
        """
        return StudyListing.from_json(await self._get_json(path_of("series", series_id, "study")))

    async def studies(self, since: int, limit: int) -> list[StudyListing]:
        """`GET /studies?expand`: a page of all studies, by 0-based position."""
        entries = await self._list("/studies", since, limit)
        return [StudyListing.from_json(entry) for entry in entries]

    async def series(self, since: int, limit: int) -> list[SeriesListing]:
        """`GET /series?expand`: a page of all series, by 0-based position."""
        entries = await self._list("/series", since, limit)
        return [SeriesListing.from_json(entry) for entry in entries]

    async def study_series(self, study_id: str) -> list[SeriesListing]:
        """`GET /studies/{id}/series`: the series of one study with their instance ids."""
        entries = await self._get_json(
            path_of("studies", study_id, "series"), timeout_seconds=_LIST_SECONDS
        )
        return [SeriesListing.from_json(entry) for entry in entries]

    async def delete(self, level: str, resource_id: str) -> None:
        """`DELETE /{patients,studies,series,instances}/{id}`.

        Raises:
            OrthancNotFound: It is not there (any more).
        """
        path = path_of(level, resource_id)
        await self._request("DELETE", path, only_reads=False, timeout=timeout_of(_LIST_SECONDS))

    async def delete_instances(self, instance_ids: Sequence[str]) -> None:
        """`POST /tools/bulk-delete`: delete instances in one call; those that are gone are fine.

        Parents that become empty go too, and what is beside them stays.
        """
        await self._request(
            "POST",
            "/tools/bulk-delete",
            only_reads=False,
            json={"Resources": list(instance_ids)},
            timeout=timeout_of(_LIST_SECONDS),
        )

    async def change_label(self, method: str, study_id: str, label: str) -> None:
        """`PUT` or `DELETE /studies/{id}/labels/{label}`; doing it twice is doing it once.

        Args:
            method: `PUT` or `DELETE`.
            study_id: Orthanc's identifier.
            label: 1 to 64 of ASCII letters, digits, `_` and `-`.

        Raises:
            OrthancNotFound: The study is not there (any more).
        """
        path = f"{path_of('studies', study_id)}/labels/{label}"
        await self._request(method, path, only_reads=False, timeout=timeout_of(_LIST_SECONDS))

    async def jobs(self) -> list[JobInfo]:
        """`GET /jobs?expand`: Orthanc's own jobs, the newest first."""
        jobs = [JobInfo.from_json(entry) for entry in await self._get_json("/jobs?expand")]
        return sorted(jobs, key=lambda job: job.created_at, reverse=True)

    async def cancel_job(self, job_id: str) -> JobInfo:
        """`POST /jobs/{id}/cancel`: cancel one of Orthanc's own jobs; returns it as it is then.

        Raises:
            OrthancNotFound: There is no such job (any more).
        """
        if not _JOB_ID.fullmatch(job_id):
            raise OrthancNotFound("Orthanc has no such job.")
        # Orthanc answers 400 to the cancellation of a job that it does not know.
        await self._get(f"/jobs/{job_id}")
        await self._request("POST", f"/jobs/{job_id}/cancel", only_reads=False, content=b"")
        return JobInfo.from_json(await self._get_json(f"/jobs/{job_id}"))

    async def modalities(self) -> Mapping[str, Mapping[str, Any]]:
        """`GET /modalities?expand`: the configuration of each modality, by its name."""
        found: dict[str, Mapping[str, Any]] = await self._get_json("/modalities?expand")
        return found

    async def declare_modality(self, name: str, configuration: Mapping[str, Any]) -> None:
        """`PUT /modalities/{name}`.

        Args:
            name: 1 to 64 of ASCII letters, digits, `-` and `_`.
            configuration: As Orthanc's manual describes it.
        """
        await self._request(
            "PUT", f"/modalities/{name}", only_reads=False, json=dict(configuration)
        )

    async def remove_modality(self, name: str) -> None:
        """`DELETE /modalities/{name}`.

        Raises:
            OrthancNotFound: It is not there.
        """
        await self._request("DELETE", f"/modalities/{name}", only_reads=False)

    async def store_at(self, name: str, instance_id: str, *, seconds: int) -> None:
        """`POST /modalities/{name}/store`: send one instance, transcoded where that is needed.

        Args:
            name: Of the modality.
            instance_id: Orthanc's identifier.
            seconds: Longest silence of the modality.

        Raises:
            OrthancError: It was not stored there.
        """
        path_of("instances", instance_id)
        await self._request(
            "POST",
            f"/modalities/{name}/store",
            only_reads=False,
            json={
                "Resources": [instance_id],
                "Synchronous": True,
                "Permissive": False,
                "Timeout": seconds,
            },
            timeout=timeout_of(2 * seconds + _LIST_SECONDS),
        )

    async def request_commitment(
        self, name: str, instance_ids: Sequence[str], *, seconds: int
    ) -> str:
        """`POST /modalities/{name}/storage-commitment`: ask a modality to keep instances.

        Args:
            name: Of the modality.
            instance_ids: Orthanc's identifiers.
            seconds: Longest silence of the modality.

        Returns:
            The UID of the transaction, for `commitment`.
        """
        answer = await self._send_json(
            "POST",
            f"/modalities/{name}/storage-commitment",
            only_reads=False,
            json={"Resources": list(instance_ids), "Timeout": seconds},
            timeout=timeout_of(2 * seconds + _LIST_SECONDS),
        )
        return str(answer["ID"])

    async def commitment(self, transaction: str) -> CommitmentReport:
        """`GET /storage-commitment/{uid}`: what a modality has answered so far.

        Raises:
            OrthancNotFound: Orthanc does not know the transaction (any more).
        """
        if not _UID.fullmatch(transaction):
            raise OrthancNotFound("Orthanc has no such transaction.")
        return CommitmentReport.from_json(
            await self._get_json(f"/storage-commitment/{transaction}")
        )

    async def _list(self, path: str, since: int, limit: int) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = await self._get_json(
            f"{path}?expand&since={int(since)}&limit={int(limit)}", timeout_seconds=_LIST_SECONDS
        )
        return entries

    async def _get_json(self, path: str, *, timeout_seconds: float | None = None) -> Any:  # noqa: ANN401  # JSON is what it is
        return _decoded(await self._get(path, timeout_seconds=timeout_seconds))

    async def _send_json(self, method: str, path: str, **options: Any) -> Any:  # noqa: ANN401  # JSON is what it is
        return _decoded(await self._request(method, path, **options))

    async def _get(
        self,
        path: str,
        *,
        timeout_seconds: float | None = None,
    ) -> httpx.Response:
        timeout = timeout_of(timeout_seconds)
        return await self._request("GET", path, only_reads=True, timeout=timeout)

    async def _request(
        self, method: str, path: str, *, only_reads: bool, **options: Any
    ) -> httpx.Response:
        try:
            return await self._request_once(method, path, only_reads=only_reads, **options)
        except OrthancBusy:
            # It did nothing: of several that write the same, the others are done by then.
            await asyncio.sleep(_BUSY_SECONDS)
        return await self._request_once(method, path, only_reads=only_reads, **options)

    async def _request_once(
        self, method: str, path: str, *, only_reads: bool, **options: Any
    ) -> httpx.Response:
        with self._main.guarded(), observed(method, path):
            with translated_faults():
                request = self._http.build_request(method, path, **options)
                response = await send(self._http, request, only_reads=only_reads)
            raise_for_status(response.status_code, response.content)
        return response


@dataclass(frozen=True, slots=True)
class ReadClients:
    """The HTTP clients of one Orthanc.

    Attributes:
        http: For what this server reads itself.
        downloads: For what is passed on as fast as its reader takes it.
    """

    http: httpx.AsyncClient
    downloads: httpx.AsyncClient


def _decoded(response: httpx.Response) -> Any:  # noqa: ANN401  # JSON is what it is
    """Parse an answer; one that is cut off counts as unknown, whatever its status said."""
    try:
        return json.loads(response.content)
    except ValueError as exc:
        raise OrthancOutcomeUnknown(detail="Orthanc's answer was no JSON") from exc


@dataclass(frozen=True, slots=True)
class Orthanc:
    """One Orthanc, with one circuit breaker for all ways to it."""

    client: OrthancClient
    files: OrthancFiles
    frames: OrthancFrames


@asynccontextmanager
async def open_orthanc(
    url: str,
    username: str,
    password: str,
    *,
    frame_seconds: float,
    capacity: OrthancCapacity = WHOLE_CAPACITY,
    read_urls: Sequence[str] = (),
) -> AsyncIterator[Orthanc]:
    """Open all ways to Orthanc; it need not answer yet.

    Args:
        url: Base URL.
        username: Its user name, `""` for none.
        password: Its password.
        frame_seconds: Longest wait for a frame, in seconds.
        capacity: What may happen at once.
        read_urls: Base URLs of other Orthancs with the same content, user and password.
    """
    credentials = (username, password)
    breakers = [CircuitBreaker() for _ in (url, *read_urls)]

    def pools(seconds: float, breaker: CircuitBreaker | None) -> Endpoints[ConnectionPool]:
        main, *readers = (
            Endpoint(ConnectionPool(one, *credentials, timeout_seconds=seconds), guard)
            for one, guard in zip((url, *read_urls), (breaker, *breakers[1:]), strict=True)
        )
        return Endpoints(main, readers)

    async with AsyncExitStack() as stack:
        clients = [
            await _enter_clients(stack, one, credentials, capacity) for one in (url, *read_urls)
        ]
        files = await stack.enter_async_context(
            open_orthanc_files(
                url,
                *credentials,
                # Whoever looks for the file that stops Orthanc must be able to ask again and again.
                readers=pools(FILE_SECONDS, None),
                breaker=breakers[0],
                capacity=capacity,
            )
        )
        frames = await stack.enter_async_context(
            open_orthanc_frames(pools(frame_seconds, breakers[0]), threads=capacity.frames)
        )
        client = OrthancClient(
            clients[0].http,
            downloads=clients[0].downloads,
            breaker=breakers[0],
            readers=[
                Endpoint(one, breaker)
                for one, breaker in zip(clients[1:], breakers[1:], strict=True)
            ],
        )
        yield Orthanc(client, files, frames)


async def _enter_clients(
    stack: AsyncExitStack, url: str, credentials: tuple[str, str], capacity: OrthancCapacity
) -> ReadClients:
    http, downloads = [
        await stack.enter_async_context(
            open_http_client(url, *credentials, connections=connections)
        )
        for connections in (capacity.calls, capacity.downloads)
    ]
    return ReadClients(http, downloads)
