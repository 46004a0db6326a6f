"""The signed routes under Starlette, with Orthanc answered by respx and one instance indexed."""

import io
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from unittest.mock import AsyncMock

import httpx
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from graph.http.client_slots import ClientSlots
from graph.routes import archives, frames
from services.audit import Audit
from services.frames.records import CrashRecords, RenderableInstance
from services.frames.service import (
    FrameLimits,
    FrameService,
    NotRenderableWriter,
    open_frames,
)
from services.frames.signing import FrameUrlKeys, FrameUrlSigner
from services.orthanc.client import OrthancClient
from services.orthanc.endpoints import Endpoint, Endpoints
from services.orthanc.frames import OrthancFrames
from services.orthanc.transport import open_http_client, raise_for_status, translated_faults

ORTHANC_URL = "http://orthanc.test"
INSTANCE_ID = "0a1b2c3d-4e5f6071-8293a4b5-c6d7e8f9-0a1b2c3d"
REVISION = "deadbeef"
STUDY_REVISION = "0190ee0a5f80"
FILE_PATH = f"/instances/{INSTANCE_ID}/file"
RAW_PATH = f"/instances/{INSTANCE_ID}/frames/0/raw"


@dataclass
class IndexedInstance:
    """One 2 x 3 grey instance with two frames and a window."""

    id: str = INSTANCE_ID
    orthanc_series_id: str = "series"
    instance_number: int | None = 1
    revision: str = REVISION
    transfer_syntax_uid: str | None = "1.2.840.10008.1.2.1"
    use_orthanc_preview: bool = True
    number_of_frames: int = 1
    not_renderable_reason: str | None = None
    rows: int | None = 2
    columns: int | None = 3
    samples_per_pixel: int | None = 1
    bits_allocated: int | None = 16
    bits_stored: int | None = 16
    pixel_representation: int | None = 0
    photometric_interpretation: str | None = "MONOCHROME2"
    window_center: float | None = 100.0
    window_width: float | None = 200.0
    voi_lut_function: str | None = None
    rescale_slope: float | None = None
    rescale_intercept: float | None = None
    has_complex_display: bool = False
    file_size_bytes: int = 1_000


class NoCrashes(CrashRecords):
    """Records of renderers that never crashed."""

    async def load(self) -> Mapping[str, int]:
        return {}

    async def add(self, frame: str) -> int:
        raise AssertionError(frame)

    async def remove(self, frame: str) -> None:
        raise AssertionError(frame)


@dataclass(frozen=True)
class Stage:
    """The running routes."""

    http: httpx.AsyncClient
    frames: FrameService
    lookups: list[str]
    audit: AsyncMock


@asynccontextmanager
async def open_stage(
    instance: RenderableInstance | None = None,
    *followers: RenderableInstance,
    records: CrashRecords | None = None,
    mark_not_renderable: NotRenderableWriter | None = None,
) -> AsyncIterator[Stage]:
    """Run the routes; `instance` is what the index holds, `followers` what comes after it."""
    lookups: list[str] = []
    instances = [one for one in (instance, *followers) if one is not None]

    async def find(instance_id: str) -> RenderableInstance | None:
        lookups.append(instance_id)
        return next((one for one in instances if one.id == instance_id), None)

    async def following(one: RenderableInstance, limit: int) -> list[RenderableInstance]:
        return instances[instances.index(one) + 1 :][:limit]

    async def find_study(_: str) -> str:
        return STUDY_REVISION

    signer = FrameUrlSigner(FrameUrlKeys((("k1", bytes(range(32))),)))
    with ThreadPoolExecutor() as threads:
        async with (
            open_http_client(ORTHANC_URL, "", "") as to_orthanc,
            open_frames(
                signer,
                OrthancClient(to_orthanc),
                OrthancFrames(Endpoints(Endpoint(fetched)), threads),
                FrameLimits(),
                find=find,
                following=following,
                find_study=find_study,
                mark_not_renderable=mark_not_renderable,
                records=records or NoCrashes(),
            ) as service,
            _client(service, audit := AsyncMock(spec=Audit)) as http,
        ):
            yield Stage(http, service, lookups, audit)


@asynccontextmanager
async def _client(service: FrameService, audit: AsyncMock) -> AsyncIterator[httpx.AsyncClient]:
    settings = SimpleNamespace(frame_cross_origin_resource_policy="cross-origin")
    slots = ClientSlots("downloads", 2, setting="ARCHIVES_PER_CLIENT")
    app = _with_state(
        Starlette(routes=[*frames.routes, *archives.archive_routes(slots)]),
        SimpleNamespace(frames=service, settings=settings, audit=audit),
    )
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://server.test") as http:
        yield http


def fetched(path: str) -> bytes:
    """Fetch as `ConnectionPool.get` does, by the one way that respx answers."""
    with translated_faults():
        response = httpx.get(f"{ORTHANC_URL}{path}")
    raise_for_status(response.status_code)
    return response.content


def dicom_file(pixels: npt.NDArray[np.uint16]) -> bytes:
    """Return a file of one native frame: 16 bits, grey, Explicit VR Little Endian."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = UID("1.2.3")
    dataset.add_new("PixelData", "OW", pixels.astype("<u2").tobytes())
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _with_state(app: ASGIApp, runtime: object) -> ASGIApp:
    async def stated(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"runtime": runtime}
        await app(scope, receive, send)

    return stated
