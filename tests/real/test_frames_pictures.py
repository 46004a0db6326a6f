"""Every file of pydicom and pydicom-data that Orthanc shows, beside Orthanc's own picture."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import cv2
import data_store  # type: ignore[import-untyped]  # a folder of files
import httpx
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom import Dataset, dcmread
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from services.embedded.orthanc import EmbeddedOrthanc
from services.errors import OrthancError
from services.frames.records import RenderableInstance
from services.frames.service import FrameService, open_frames
from services.frames.signing import FrameUrlKeys, FrameUrlSigner
from services.frames.variant import FrameVariant
from services.orthanc.client import OrthancClient
from services.orthanc.connection_pool import ConnectionPool
from services.orthanc.frames import Fetch, OrthancFrames
from services.orthanc.transport import open_http_client

_FOLDERS = (
    Path(pydicom.__file__).parent / "data" / "test_files",
    Path(data_store.__file__).parent / "data",
)
_DECODE_SECONDS = 30
# Some of the files are wrong on purpose, and pydicom says so.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

FULL = FrameVariant(full_range=True)


async def nothing_follows(_: RenderableInstance, __: int) -> list[RenderableInstance]:
    return []


async def nothing_is_indexed(_: str) -> RenderableInstance | None:
    return None


@asynccontextmanager
async def opened_frames(
    orthanc: EmbeddedOrthanc, client: OrthancClient, fetch: Fetch | None = None
) -> AsyncIterator[FrameService]:
    signer = FrameUrlSigner(FrameUrlKeys((("k1", bytes(32)),)))
    kept = ConnectionPool(
        orthanc.url, orthanc.username, orthanc.password, timeout_seconds=_DECODE_SECONDS
    )
    with ThreadPoolExecutor(4) as threads, closing(kept):
        sources = OrthancFrames(fetch or kept.get, threads)
        async with open_frames(
            signer,
            client,
            sources,
            find=nothing_is_indexed,
            following=nothing_follows,
            records=NoDeaths(),
        ) as frames:
            yield frames


class NoDeaths:
    async def load(self) -> Mapping[str, int]:
        return {}

    async def add(self, frame: str) -> int:
        raise AssertionError(frame)

    async def remove(self, frame: str) -> None:
        raise AssertionError(frame)


@dataclass
class Instance:
    id: str
    number_of_frames: int
    rows: int | None
    columns: int | None
    samples_per_pixel: int | None
    bits_allocated: int | None
    bits_stored: int | None
    pixel_representation: int | None
    photometric_interpretation: str | None
    window_center: float | None
    window_width: float | None
    voi_lut_function: str | None
    rescale_slope: float | None
    rescale_intercept: float | None
    has_complex_display: bool
    transfer_syntax_uid: str | None
    revision: str = "deadbeef"
    orthanc_series_id: str = "alone"
    instance_number: int | None = None
    use_orthanc_preview: bool = True
    not_renderable_reason: str | None = None


@dataclass(frozen=True)
class Stage:
    http: httpx.AsyncClient
    client: OrthancClient
    frames: FrameService
    files: dict[Path, RenderableInstance]


def read_instance(instance_id: str, number_of_frames: int, dataset: Dataset) -> Instance:
    def number(keyword: str) -> float | None:
        value = dataset.get(keyword)
        value = value[0] if isinstance(value, MultiValue) else value
        return None if value in (None, "") else float(value)

    return Instance(
        id=instance_id,
        number_of_frames=number_of_frames,
        transfer_syntax_uid=dataset.file_meta.get("TransferSyntaxUID"),
        rows=dataset.get("Rows"),
        columns=dataset.get("Columns"),
        samples_per_pixel=dataset.get("SamplesPerPixel"),
        bits_allocated=dataset.get("BitsAllocated"),
        bits_stored=dataset.get("BitsStored"),
        pixel_representation=dataset.get("PixelRepresentation"),
        photometric_interpretation=dataset.get("PhotometricInterpretation"),
        window_center=number("WindowCenter"),
        window_width=number("WindowWidth"),
        voi_lut_function=dataset.get("VOILUTFunction"),
        rescale_slope=number("RescaleSlope"),
        rescale_intercept=number("RescaleIntercept"),
        has_complex_display=any(
            keyword in dataset
            for keyword in (
                "ModalityLUTSequence",
                "VOILUTSequence",
                "SharedFunctionalGroupsSequence",
            )
        ),
    )


def parts() -> list[Path]:
    paths = (path for folder in _FOLDERS for path in sorted(folder.rglob("*")))
    return [path for path in paths if path.is_file() and path.suffix in ("", ".dcm")]


async def frame_count(client: OrthancClient, instance_id: str) -> int:
    """Orthanc refuses to count the frames of what has no number of frames that is one."""
    try:
        return await client.frame_count(instance_id)
    except OrthancError:
        return 0


async def holds(client: OrthancClient, instance_id: str, content: bytes) -> bool:
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return await client.dicom_md5(instance_id) == digest


@pytest.fixture(scope="module")
async def stage(orthanc: EmbeddedOrthanc) -> AsyncIterator[Stage]:
    async with open_http_client(orthanc.url, orthanc.username, orthanc.password) as http:
        client = OrthancClient(http)
        files: dict[Path, RenderableInstance] = {}
        for path in parts():
            content = path.read_bytes()
            answer = await http.post("/instances", content=content)
            # Other tests may have stored the same file, or another one of its UIDs.
            if answer.is_success and await holds(client, answer.json()["ID"], content):
                dataset = dcmread(path, stop_before_pixels=True, force=True)
                instance_id = answer.json()["ID"]
                if count := await frame_count(client, instance_id):
                    files[path] = read_instance(instance_id, count, dataset)
        async with opened_frames(orthanc, client) as frames:
            yield Stage(http, client, frames, files)


def decoded(png: bytes) -> npt.NDArray[np.int64]:
    return np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)).astype(
        np.int64
    )


async def orthanc_png(
    http: httpx.AsyncClient, instance_id: str, frame_index: int, route: str
) -> bytes | None:
    answer = await http.get(f"/instances/{instance_id}/frames/{frame_index}/{route}")
    return answer.content if answer.is_success else None


async def test_full_range_equals_orthancs_preview_within_one_grey_level(stage: Stage) -> None:
    compared = 0
    for path, instance in stage.files.items():
        for frame_index in {0, instance.number_of_frames - 1}:
            preview = await orthanc_png(stage.http, instance.id, frame_index, "preview")
            if preview is None:
                continue
            ours = decoded((await stage.frames.render(instance, frame_index, FULL)).content)
            theirs = decoded(preview)
            assert ours.shape == theirs.shape, path.name
            assert np.abs(ours - theirs).max() <= 1, path.name
            compared += 1
    assert compared >= 80


async def test_what_orthanc_can_show_is_shown(stage: Stage) -> None:
    for path, instance in stage.files.items():
        shown = [
            await orthanc_png(stage.http, instance.id, 0, route)
            for route in ("preview", "rendered")
        ]
        if any(shown):
            frame = await stage.frames.render(instance, 0)
            assert frame.content[:4] == b"\x89PNG", path.name


async def test_the_default_window_is_that_of_the_file_as_pydicom_applies_it(stage: Stage) -> None:
    compared = 0
    for path, instance in stage.files.items():
        dataset = dcmread(path, force=True)
        is_windowed = "WindowCenter" in dataset or "VOILUTSequence" in dataset
        is_plain = dataset.get("PhotometricInterpretation") == "MONOCHROME2" and not str(
            dataset.file_meta.get("TransferSyntaxUID", "")
        ).startswith("1.2.840.10008.1.2.4")
        if not (is_windowed and is_plain and dataset.get("BitsStored") == dataset.BitsAllocated):
            continue
        stored = dataset.pixel_array
        theirs = apply_voi_lut(apply_modality_lut(stored, dataset), dataset).astype(np.float64)
        ours = decoded((await stage.frames.render(instance, 0)).content)
        low, high = output_range(dataset)
        assert np.abs(ours - (theirs - low) / (high - low) * 255).max() <= 1, path.name
        compared += 1
    assert compared >= 20


async def test_without_a_window_in_the_file_the_default_is_the_full_range(stage: Stage) -> None:
    compared = 0
    for path, instance in stage.files.items():
        if instance.window_center is not None or instance.has_complex_display:
            continue
        if await orthanc_png(stage.http, instance.id, 0, "preview") is None:
            continue
        default = decoded((await stage.frames.render(instance, 0)).content)
        full = decoded((await stage.frames.render(instance, 0, FULL)).content)
        assert default.shape == full.shape, path.name
        assert np.abs(default - full).max() <= 1, path.name
        compared += 1
    assert compared >= 25


def output_range(dataset: Dataset) -> tuple[float, float]:
    """The output range that pydicom documents for `apply_voi_lut`."""
    bits = int(dataset.BitsStored)
    if "VOILUTSequence" in dataset:
        return 0, 2 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1
    signed = dataset.PixelRepresentation == 1
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    slope = float(dataset.get("RescaleSlope", 1))
    intercept = float(dataset.get("RescaleIntercept", 0))
    return low * slope + intercept, high * slope + intercept


async def test_200_simultaneous_requests_are_one_call_to_orthanc(
    orthanc: EmbeddedOrthanc, stage: Stage
) -> None:
    instance = next(iter(stage.files.values()))
    asked: list[str] = []
    kept = ConnectionPool(
        orthanc.url, orthanc.username, orthanc.password, timeout_seconds=_DECODE_SECONDS
    )

    def fetch(path: str) -> bytes:
        asked.append(path)
        return kept.get(path)

    with closing(kept):
        async with opened_frames(orthanc, stage.client, fetch) as frames:
            pictures = await asyncio.gather(*(frames.render(instance, 0, FULL) for _ in range(200)))
    assert len(set(map(id, pictures))) == 1
    assert len([path for path in asked if "/numpy" in path]) == 1
